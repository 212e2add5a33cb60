"""The sections of a recipe: what can be chosen in each, and the options that every choice has.

A section with a ``name`` is a discriminated union: each name has a class that holds its own options and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from assay.options import Options

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Shrink = Literal["window", "resize"]
Needs = Mapping[str, tuple[str, ...]]
NO_EFFECT = "no_effect"  # type of the validation error


class Section(Options):
    """Options of which some turn others off: one that is given and cannot act is refused, and none is dumped.

    ``needs`` maps an option to others; while all of those are 0 or empty it has no effect.
    """

    needs: ClassVar[Needs] = {}

    def without_effect(self) -> Mapping[str, str]:
        """The options that have no effect given the others, each with the reason."""
        idle = {name: others for name, others in self.needs.items() if not any(getattr(self, o) for o in others)}
        return {
            name: " and ".join(f"{other} is {'empty' if getattr(self, other) == () else 0}" for other in others)
            for name, others in idle.items()
            if getattr(self, name) is not False  # off anyway
        }

    @model_validator(mode="after")
    def _refuse_options_without_effect(self) -> Self:
        for name, reason in self.without_effect().items():
            if name in self.model_fields_set:
                raise PydanticCustomError(NO_EFFECT, "no effect while {reason}", {"option": name, "reason": reason})
        return self

    @model_serializer(mode="wrap")
    def _dump_options_with_effect(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name not in self.without_effect()}


class _Optimizer(Section):
    """``weight_decay`` reaches the parameters of ``decay_roles`` (see :mod:`assay.training.param_groups`).

    ``norm_lr_factor`` multiplies the learning rate of normalisation parameters and leaves lr · decay as it was.
    """

    name: str
    lr: Positive = 0.1
    weight_decay: NotNegative = 5e-4
    decay_roles: tuple[Literal["norm", "bias", "weight", "other"], ...] = ("weight",)
    norm_lr_factor: Positive = 1.0
    needs: ClassVar[Needs] = {"decay_roles": ("weight_decay",)}


class SGDOptions(_Optimizer):
    """Stochastic gradient descent with (Nesterov) momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: BelowOne = 0.9
    nesterov: bool = True
    needs: ClassVar[Needs] = {**_Optimizer.needs, "nesterov": ("momentum",)}


class AdamWOptions(_Optimizer):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)


class MuonOptions(_Optimizer):
    """Muon on the hidden weight matrices, SGD with ``side_lr`` and ``side_momentum`` on all other parameters.

    ``unit_norm`` rescales the matrices before every step; they then do not decay. ``newton_schulz_steps`` sets how
    nearly orthogonal their updates are.
    """

    name: Literal["muon"] = "muon"
    momentum: BelowOne = 0.9
    nesterov: bool = True
    unit_norm: bool = False
    newton_schulz_steps: Annotated[int, Field(ge=1, le=10)] = 5
    side_lr: Positive = 0.1
    side_momentum: BelowOne = 0.9
    needs: ClassVar[Needs] = {**_Optimizer.needs, "nesterov": ("momentum", "side_momentum")}


class Nothing(Section):
    """None of it: no augmentation, no clipping, no mixing, no adversary."""

    name: Literal["none"] = "none"


class ConstantSchedule(Section):
    """1, after a linear rise over the first ``warmup`` of all steps, a share."""

    name: Literal["constant"] = "constant"
    warmup: BelowOne = 0.0


class DecaySchedule(Section):
    """From 1, after the warm-up, down to ``final``: along half a cosine, or straight."""

    name: Literal["cosine", "linear"] = "cosine"
    warmup: BelowOne = 0.0
    final: Share = 0.0


class TriangularSchedule(Section):
    """From ``start`` up to 1 at the share ``peak`` of all steps, then down to ``final``."""

    name: Literal["triangular"] = "triangular"
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.2
    start: Share = 0.2
    final: Share = 0.0


class MultistepSchedule(Section):
    """1, after the warm-up, times ``gamma`` at every one of ``milestones``, shares of all steps."""

    name: Literal["multistep"] = "multistep"
    warmup: BelowOne = 0.0
    milestones: tuple[BelowOne, ...] = ()
    gamma: BelowOne = 0.1
    needs: ClassVar[Needs] = {"gamma": ("milestones",)}


class FlipCrop(Section):
    """``flip-crop`` pads with black, crops at random and mirrors half of the images.

    ``alternating`` shifts with a mirrored border and mirrors every image in every other epoch.
    """

    name: Literal["flip-crop", "alternating"] = "flip-crop"
    padding: Annotated[int, Field(ge=0, le=64)] = 4
    flip: bool = True


class PolicyAugment(Section):
    """What the text ``policy`` says, in the language of ``assay augment``: ``crop(4) + flip() + randaugment``."""

    name: Literal["policy"] = "policy"
    policy: str


class GradientClip(Section):
    """Gradient clipping: by global L2 ``norm``, by ``value``, or ``adaptive`` to each unit's weight norm."""

    name: Literal["norm", "value", "adaptive"]
    limit: Positive = 1.0


class SampleMix(Section):
    """Mixing of samples within a batch; ``alpha`` of the Beta distribution that the share is drawn from."""

    name: Literal["mixup", "cutmix"]
    alpha: Positive = 0.2


class _Adversary(Section):
    """Adversarial training within an L∞ ball of radius ``epsilon``, in pixel units as ``step_size`` is.

    ``watch`` is the number of training images on which FGSM and PGD accuracy are compared after every epoch. When
    FGSM is ahead by more than ``gap`` the network has overfitted to the single step, and training goes on with
    ``fallback_steps`` of PGD; 0 of them: it stops.
    """

    name: str
    epsilon: NotNegative = 8 / 255
    step_size: Positive = 8 / 255
    watch: Annotated[int, Field(ge=0)] = 256
    gap: Share = 0.25
    fallback_steps: Annotated[int, Field(ge=0)] = 2
    needs: ClassVar[Needs] = {"gap": ("watch",), "fallback_steps": ("watch",)}


class NFGSMAdversary(_Adversary):
    """One step from a random start up to ``noise`` · ``epsilon`` away."""

    name: Literal["n-fgsm"] = "n-fgsm"
    noise: NotNegative = 2.0


class PGDAdversary(_Adversary):
    """Several projected steps."""

    name: Literal["pgd"] = "pgd"
    epsilon: Positive = 8 / 255
    steps: Annotated[int, Field(ge=1)] = 1


class AverageOptions(Section):
    """Exponential moving average of the weights, one update every ``every`` steps; a decay of 0 turns it off."""

    decay: BelowOne = 0.0
    every: Annotated[int, Field(ge=1)] = 1
    needs: ClassVar[Needs] = {"every": ("decay",)}


class PruneOptions(Section):
    """Epochs that leave out ``share`` of the samples, drawn at random from twice as many with the smallest losses.

    A sample's loss is that of when it was last trained on, less the mean of its micro-batch. The epochs are those
    that begin between ``start`` and ``end``, shares of the run; the first is always complete. The idea is that of
    Qin et al., *InfoBatch*, ICLR 2024, without their rescaled gradients.
    """

    share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    start: BelowOne = 0.4
    end: Share = 1.0
    needs: ClassVar[Needs] = {"start": ("share",), "end": ("share",)}

    @field_validator("end")
    @classmethod
    def _follows_the_start(cls, end: float, info: ValidationInfo) -> float:
        start = info.data.get("start")
        if start is not None and end <= start:
            raise ValueError(f"a share above the start, {start:g}")
        return end


class FinetuneOptions(Section):
    """How a network that was trained before goes on: layers nearer to its input move less, and not from the start.

    The learning rate of a block is ``layer_decay`` times that of the one after it, 1 for all alike. In the first
    ``frozen_epochs``, but never in the last epoch, the last layer alone is trained; normalisation layers keep their
    running statistics then.
    Reference: Clark et al., *ELECTRA*, ICLR 2020; Bao et al., *BEiT*, ICLR 2022.
    """

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    frozen_epochs: Annotated[int, Field(ge=0)] = 0


SEQUENCE_TASKS = ("adding", "copy")  # what a recipe can name as its data; here, so that reading one needs no torch


class SequenceOptions(Options):
    """The tasks ``adding`` and ``copy``, generated on the fly: ``length`` steps, of ``copy`` the blanks alone.

    No sequence is seen twice; ``samples`` of them count as an epoch, ``test_samples`` are tested on at the end.
    """

    length: Annotated[int, Field(ge=2)] = 100
    samples: Annotated[int, Field(ge=1)] = 6400
    test_samples: Annotated[int, Field(ge=1)] = 2000


_BY_NAME = Field(discriminator="name")
OptimizerOptions = Annotated[SGDOptions | AdamWOptions | MuonOptions, _BY_NAME]
ScheduleOptions = Annotated[ConstantSchedule | DecaySchedule | TriangularSchedule | MultistepSchedule, _BY_NAME]
AugmentOptions = Annotated[Nothing | FlipCrop | PolicyAugment, _BY_NAME]
ClipOptions = Annotated[Nothing | GradientClip, _BY_NAME]
MixOptions = Annotated[Nothing | SampleMix, _BY_NAME]
AdversaryOptions = Annotated[Nothing | NFGSMAdversary | PGDAdversary, _BY_NAME]
_UNIONS = (OptimizerOptions, ScheduleOptions, AugmentOptions, ClipOptions, MixOptions, AdversaryOptions)

CHOICES: dict[str, dict[str, type[Section]]] = {
    section: {
        name: kind for kind in get_args(get_args(union)[0]) for name in get_args(kind.model_fields["name"].annotation)
    }
    for section, union in zip(("optimizer", "schedule", "augment", "clip", "mix", "adversary"), _UNIONS, strict=True)
}
"""Section -> name -> the class that this name chooses."""
