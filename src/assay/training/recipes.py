"""Recipes: everything a training run is decided by, as TOML files checked on reading and saved with the run."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from assay.errors import OptionError
from assay.options import Options

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Shrink = Literal["window", "resize"]


class OptimizerOptions(Options):
    """Which rule updates the parameters, and with what.

    ``weight_decay`` reaches the parameters of ``decay_roles``, the weights unless told otherwise (see
    :mod:`assay.training.param_groups`).
    With ``muon`` the hidden weight matrices get ``lr`` and ``momentum``, all other parameters SGD with ``side_lr``
    and ``side_momentum``; ``unit_norm`` rescales the former, which then do not decay; ``newton_schulz_steps`` tells
    how nearly orthogonal their updates are. ``norm_lr_factor`` multiplies the learning rate of normalisation
    parameters and leaves lr · decay as it was.
    """

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: NotNegative = 5e-4
    decay_roles: tuple[Literal["norm", "bias", "weight"], ...] = ("weight",)
    norm_lr_factor: Positive = 1.0
    unit_norm: bool = False
    newton_schulz_steps: Annotated[int, Field(ge=1, le=10)] = 5
    side_lr: Positive = 0.1
    side_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class ScheduleOptions(Options):
    """The learning rate over the run; ``warmup``, ``peak`` and ``milestones`` are shares of all steps."""

    name: Literal["constant", "cosine", "linear", "triangular", "multistep"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.2
    start: Share = 0.2
    final: Share = 0.0
    milestones: tuple[Share, ...] = ()
    gamma: Share = 0.1


class AugmentOptions(Options):
    """What happens to the bytes of a training image.

    ``flip-crop`` pads black, crops and mirrors half of the images; ``alternating`` shifts with a mirrored border and
    mirrors every image in every other epoch; ``policy`` does what the text ``policy`` says, in the language of
    ``assay augment``: ``crop(4) + flip() + randaugment``.
    """

    name: Literal["none", "flip-crop", "alternating", "policy"] = "flip-crop"
    padding: Annotated[int, Field(ge=0, le=64)] = 4
    flip: bool = True
    policy: str = ""


class ClipOptions(Options):
    """Gradient clipping: by global ``norm``, by ``value``, or ``adaptive`` to each unit's weight norm."""

    name: Literal["none", "norm", "value", "adaptive"] = "none"
    limit: Positive = 1.0


class MixOptions(Options):
    """Mixing of samples within a batch: ``alpha`` of the Beta distribution the share is drawn from."""

    name: Literal["none", "mixup", "cutmix"] = "none"
    alpha: Positive = 0.2


class AverageOptions(Options):
    """Exponential moving average of the weights, one update every ``every`` steps; a decay of 0 turns it off."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    every: Annotated[int, Field(ge=1)] = 1


class AdversaryOptions(Options):
    """Adversarial training: the perturbation of every batch, in pixel units.

    ``watch`` is the number of training images on which FGSM and PGD accuracy are compared after every epoch. When
    FGSM is ahead by more than ``gap`` the network has overfitted to the single step, and training goes on with
    ``fallback_steps`` of PGD; 0 of them: it stops.
    """

    name: Literal["none", "n-fgsm", "pgd"] = "none"
    epsilon: NotNegative = 8 / 255
    step_size: Positive = 8 / 255
    steps: Annotated[int, Field(ge=1)] = 1
    noise: NotNegative = 2.0
    watch: Annotated[int, Field(ge=0)] = 256
    gap: Share = 0.25
    fallback_steps: Annotated[int, Field(ge=0)] = 2


class PruneOptions(Options):
    """Epochs that leave out ``share`` of the samples, drawn at random from twice as many that are learnt best.

    Which those are, the loss tells that each had when it was last trained on, less the mean of its micro-batch. The
    epochs are those that begin between ``start`` and ``end``, shares of the run; the first is always whole. The idea
    is that of Qin et al., *InfoBatch*, ICLR 2024, without their rescaled gradients.
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


class SequenceOptions(Options):
    """The tasks ``adding`` and ``copy``, made up as they go: ``length`` steps, of ``copy`` the blanks alone.

    No sequence is seen twice; ``samples`` of them count as an epoch, ``test_samples`` are tested on at the end.
    """

    length: Annotated[int, Field(ge=2)] = 100
    samples: Annotated[int, Field(ge=1)] = 6400
    test_samples: Annotated[int, Field(ge=1)] = 2000


class Recipe(Options):
    """One way to train one kind of network. See the sections for their fields; print it with :meth:`to_toml`.

    ``micro_batch`` is how many images go through the network at once: gradients are summed over a step's
    micro-batches, and normalisation layers see one micro-batch at a time. ``precision`` is that of convolutions and
    matrix products; weights, sums and the loss stay ``float32``; ``auto`` is ``bfloat16`` where the device multiplies
    it in hardware, else ``float32``, and the run keeps which it was. ``resolution`` lists (share of the run,
    side in pixels) stages: from that share on, images of that side are trained on, cut out at random or resized as
    ``shrink`` says; a network whose last pooling is global takes any of them. ``test_views``, where it is not 1, adds
    a second number to the test: logits averaged over that many views of each image.
    """

    name: str
    description: str = ""
    data: str = "digits"
    model: str = "speednet"
    model_options: dict[str, Any] = Field(default_factory=dict)
    epochs: Annotated[float, Field(gt=0)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 128
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    refresh_batchnorm: Annotated[int, Field(ge=0)] = 0
    test_views: Literal[1, 2, 6] = 1
    resolution: tuple[tuple[Share, Annotated[int, Field(ge=8)]], ...] = ()
    shrink: Shrink = "window"
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    augment: AugmentOptions = AugmentOptions()
    clip: ClipOptions = ClipOptions()
    mix: MixOptions = MixOptions()
    average: AverageOptions = AverageOptions()
    adversary: AdversaryOptions = AdversaryOptions()
    prune: PruneOptions = PruneOptions()
    sequence: SequenceOptions = SequenceOptions()

    @field_validator("micro_batch")
    @classmethod
    def _divides_the_batch(cls, size: int | None, info: ValidationInfo) -> int | None:
        batch = info.data.get("batch_size")
        if size is not None and batch is not None and batch > size and batch % size:
            raise ValueError(f"a number that divides the batch_size, {batch}")
        return size

    def settled(self, *, fast_bfloat16: bool) -> Recipe:
        """The same recipe with ``auto`` replaced by the precision that a machine gets."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": "bfloat16" if fast_bfloat16 else "float32"})

    def to_toml(self) -> str:
        """The whole recipe as TOML, defaults spelled out; :func:`load_recipe` reads it back to an equal recipe."""
        values = self.model_dump(mode="json", exclude_none=True)
        plain = [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
        tables = [(key, value) for key, value in values.items() if isinstance(value, dict) and value]
        sections = ["\n".join([f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in value.items())]) for key, value in tables]
        return "\n\n".join(["\n".join(plain), *sections]) + "\n"


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with assay."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml")))


def load_recipe(name_or_path: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or from a ``.toml`` file, then apply ``overrides`` such as ``"optimizer.lr=0.1"``.

    Raises :class:`OptionError` for an unknown name, a file that is no TOML, and any field that is not valid.
    """
    where, text = _read(name_or_path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OptionError(where, expected="a TOML file", got=error) from None
    for override in overrides:
        _apply(values, override)
    return Recipe.parse(values, where=where)


def _read(name_or_path: str | Path) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix == ".toml" or len(path.parts) > 1:
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError("recipe", expected=f"a readable file {path}", got=error) from None
    if str(name_or_path) not in recipe_names():
        expected = f"one of {', '.join(recipe_names())}, or a .toml file"
        raise OptionError("recipe", expected=expected, got=name_or_path)
    return f"recipe {name_or_path}", (_folder() / f"{name_or_path}.toml").read_text(encoding="utf-8")


def _folder() -> resources.abc.Traversable:
    return resources.files("assay.training") / "recipes"


def _apply(values: dict[str, Any], override: str) -> None:
    """Write ``section.key=value`` into nested ``values``; the value is read as TOML, a bare word as text."""
    key, equals, text = override.partition("=")
    *sections, last = (part.strip() for part in key.split("."))
    if not equals or not last or not all(sections):
        raise OptionError("--set", expected="key=value, such as optimizer.lr=0.1", got=override)
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise OptionError("--set", expected=f"{section} to be a section", got=override)
    values[last] = value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return repr(value)
