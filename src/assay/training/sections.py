"""The sections of a recipe: what can be chosen in each, and the options that every choice has.

A section with a ``name`` is a discriminated union: each name has a class that holds its own options and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from assay.options import Options

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Shrink = Literal["window", "resize"]

NO_EFFECT = "no_effect"  # type of the validation error


class Section(Options):
    """Options of which some turn others off: one that is given and cannot act is refused, and none is dumped."""

    def without_effect(self) -> Mapping[str, str]:
        """The options that have no effect given the others, each with the reason."""
        return {}

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
    decay_roles: tuple[Literal["norm", "bias", "weight"], ...] = ("weight",)
    norm_lr_factor: Positive = 1.0

    def without_effect(self) -> Mapping[str, str]:
        return {} if self.weight_decay else {"decay_roles": "optimizer.weight_decay is 0"}


class SGDOptions(_Optimizer):
    """Stochastic gradient descent with (Nesterov) momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.9
    nesterov: bool = True

    def without_effect(self) -> Mapping[str, str]:
        idle = {"nesterov": "optimizer.momentum is 0"} if self.nesterov and not self.momentum else {}
        return {**super().without_effect(), **idle}


class AdamWOptions(_Optimizer):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[Share, Share] = (0.9, 0.999)


class MuonOptions(_Optimizer):
    """Muon on the hidden weight matrices, SGD with ``side_lr`` and ``side_momentum`` on all other parameters.

    ``unit_norm`` rescales the matrices before every step; they then do not decay. ``newton_schulz_steps`` sets how
    nearly orthogonal their updates are.
    """

    name: Literal["muon"] = "muon"
    momentum: Momentum = 0.9
    nesterov: bool = True
    unit_norm: bool = False
    newton_schulz_steps: Annotated[int, Field(ge=1, le=10)] = 5
    side_lr: Positive = 0.1
    side_momentum: Momentum = 0.9

    def without_effect(self) -> Mapping[str, str]:
        momentum = self.momentum or self.side_momentum
        reason = "optimizer.momentum and optimizer.side_momentum are 0"
        return {**super().without_effect(), **({"nesterov": reason} if self.nesterov and not momentum else {})}


class _WarmedUp(Section):
    """A linear rise over the first ``warmup`` of all steps, a share, then the schedule proper."""

    name: str
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ConstantSchedule(_WarmedUp):
    name: Literal["constant"] = "constant"


class CosineSchedule(_WarmedUp):
    name: Literal["cosine"] = "cosine"
    final: Share = 0.0


class LinearSchedule(_WarmedUp):
    name: Literal["linear"] = "linear"
    final: Share = 0.0


class TriangularSchedule(Section):
    """From ``start`` up to 1 at the share ``peak`` of all steps, then down to ``final``."""

    name: Literal["triangular"] = "triangular"
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.2
    start: Share = 0.2
    final: Share = 0.0


class MultistepSchedule(_WarmedUp):
    """Times ``gamma`` at every one of ``milestones``, shares of all steps."""

    name: Literal["multistep"] = "multistep"
    milestones: tuple[Share, ...] = ()
    gamma: Share = 0.1

    def without_effect(self) -> Mapping[str, str]:
        return {} if self.milestones else {"gamma": "schedule.milestones is empty"}


class NoAugment(Section):
    name: Literal["none"] = "none"


class FlipCropAugment(Section):
    """Pad with black, crop at random, mirror half of the images."""

    name: Literal["flip-crop"] = "flip-crop"
    padding: Annotated[int, Field(ge=0, le=64)] = 4
    flip: bool = True


class AlternatingAugment(Section):
    """Shift with a mirrored border, and mirror every image in every other epoch."""

    name: Literal["alternating"] = "alternating"
    padding: Annotated[int, Field(ge=0, le=64)] = 4
    flip: bool = True


class PolicyAugment(Section):
    """What the text ``policy`` says, in the language of ``assay augment``: ``crop(4) + flip() + randaugment``."""

    name: Literal["policy"] = "policy"
    policy: str


class NoClip(Section):
    name: Literal["none"] = "none"


class NormClip(Section):
    """The global L2 norm of the gradient to at most ``limit``."""

    name: Literal["norm"] = "norm"
    limit: Positive = 1.0


class ValueClip(Section):
    """Every entry of the gradient to [−``limit``, ``limit``]."""

    name: Literal["value"] = "value"
    limit: Positive = 1.0


class AdaptiveClip(Section):
    """Each unit's gradient norm to at most ``limit`` times its weight norm."""

    name: Literal["adaptive"] = "adaptive"
    limit: Positive = 1.0


class NoMix(Section):
    name: Literal["none"] = "none"


class Mixup(Section):
    """Convex combinations of two samples; ``alpha`` of the Beta distribution that the share is drawn from."""

    name: Literal["mixup"] = "mixup"
    alpha: Positive = 0.2


class CutMix(Section):
    """A box of another sample pasted in; ``alpha`` of the Beta distribution that its area is drawn from."""

    name: Literal["cutmix"] = "cutmix"
    alpha: Positive = 0.2


class NoAdversary(Section):
    name: Literal["none"] = "none"


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

    def without_effect(self) -> Mapping[str, str]:
        return {} if self.watch else dict.fromkeys(("gap", "fallback_steps"), "adversary.watch is 0")


class NFGSMAdversary(_Adversary):
    """One step from a random start up to ``noise`` · ``epsilon`` away."""

    name: Literal["n-fgsm"] = "n-fgsm"
    noise: NotNegative = 2.0


class PGDAdversary(_Adversary):
    """Several projected steps."""

    name: Literal["pgd"] = "pgd"
    steps: Annotated[int, Field(ge=1)] = 1


class AverageOptions(Section):
    """Exponential moving average of the weights, one update every ``every`` steps; a decay of 0 turns it off."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    every: Annotated[int, Field(ge=1)] = 1

    def without_effect(self) -> Mapping[str, str]:
        return {} if self.decay else {"every": "average.decay is 0"}


class PruneOptions(Section):
    """Epochs that leave out ``share`` of the samples, drawn at random from twice as many with the smallest losses.

    A sample's loss is that of when it was last trained on, less the mean of its micro-batch. The epochs are those
    that begin between ``start`` and ``end``, shares of the run; the first is always complete. The idea is that of
    Qin et al., *InfoBatch*, ICLR 2024, without their rescaled gradients.
    """

    share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    start: Annotated[float, Field(ge=0, lt=1)] = 0.4
    end: Share = 1.0

    @field_validator("end")
    @classmethod
    def _follows_the_start(cls, end: float, info: ValidationInfo) -> float:
        start = info.data.get("start")
        if start is not None and end <= start:
            raise ValueError(f"a share above the start, {start:g}")
        return end

    def without_effect(self) -> Mapping[str, str]:
        return {} if self.share else dict.fromkeys(("start", "end"), "prune.share is 0")


SEQUENCE_TASKS = ("adding", "copy")  # that a recipe can name as its data


class SequenceOptions(Options):
    """The tasks ``adding`` and ``copy``, generated on the fly: ``length`` steps, of ``copy`` the blanks alone.

    No sequence is seen twice; ``samples`` of them count as an epoch, ``test_samples`` are tested on at the end.
    """

    length: Annotated[int, Field(ge=2)] = 100
    samples: Annotated[int, Field(ge=1)] = 6400
    test_samples: Annotated[int, Field(ge=1)] = 2000


_BY_NAME = Field(discriminator="name")
OptimizerOptions = Annotated[SGDOptions | AdamWOptions | MuonOptions, _BY_NAME]
ScheduleOptions = Annotated[
    ConstantSchedule | CosineSchedule | LinearSchedule | TriangularSchedule | MultistepSchedule, _BY_NAME
]
AugmentOptions = Annotated[NoAugment | FlipCropAugment | AlternatingAugment | PolicyAugment, _BY_NAME]
ClipOptions = Annotated[NoClip | NormClip | ValueClip | AdaptiveClip, _BY_NAME]
MixOptions = Annotated[NoMix | Mixup | CutMix, _BY_NAME]
AdversaryOptions = Annotated[NoAdversary | NFGSMAdversary | PGDAdversary, _BY_NAME]

CHOICES: dict[str, dict[str, type[Section]]] = {
    section: {kind.model_fields["name"].get_default(): kind for kind in get_args(get_args(union)[0])}
    for section, union in {
        "optimizer": OptimizerOptions,
        "schedule": ScheduleOptions,
        "augment": AugmentOptions,
        "clip": ClipOptions,
        "mix": MixOptions,
        "adversary": AdversaryOptions,
    }.items()
}
"""Section -> name -> the class that this name chooses."""
