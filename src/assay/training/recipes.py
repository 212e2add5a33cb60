"""Recipes: everything a training run is decided by, as TOML files checked on reading and saved with the run."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from assay.arguments import checked
from assay.errors import OptionError, UnusedOptionError
from assay.options import option_error
from assay.training import sections
from assay.training.sections import CHOICES, NO_EFFECT, SEQUENCE_TASKS, Needs, Section, Share, Shrink

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_FOLDER = resources.files("assay.training") / "recipes"
IMAGE_OPTIONS: dict[str, object] = {
    "label_smoothing": 0.0,
    "refresh_batchnorm": 0,
    "test_views": 1,
    "resolution": (),
    "augment": sections.Nothing(),
    "mix": sections.Nothing(),
    "adversary": sections.Nothing(),
    "prune": sections.PruneOptions(),
    "finetune": sections.FinetuneOptions(),
}
"""What only images have, and the value that asks for none of it."""


class Recipe(Section):
    """Everything that decides a training run: data, model, length, precision, and a section for each part of the step.

    The sections ``optimizer``, ``schedule``, ``augment``, ``clip``, ``mix`` and ``adversary`` are choices by ``name``;
    :mod:`assay.training.sections` has the options of each. An option that the choice does not have, or that another
    option turns off, is refused by name.

    Args:
        name: What the run is called; with the seed it names the run folder.
        data: The data set or the task of sequences that the recipe was made for.
        model: An architecture of ours, built with ``model_options``, or any other model, as ``assay check`` names it:
            ``timm:NAME,pretrained=true``, ``transformers:FOLDER``, a run folder.
        epochs: Passes over the training set; a fraction is allowed.
        batch_size: Samples of an optimizer step, over all processes.
        micro_batch: Samples that go through the network at once; gradients are summed over the micro-batches of a
            step, and normalisation layers see one micro-batch at a time. None: the whole batch.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        precision: Of convolutions and matrix products; weights, sums and the loss stay ``float32``. ``auto`` is
            ``bfloat16`` where the device multiplies it in hardware, else ``float32``; the run keeps which it was.
        refresh_batchnorm: After training, batch statistics are averaged anew over that many training images.
        test_views: Where it is not 1, the test has a second number: logits averaged over that many views.
        resolution: (share of the run, side in pixels) stages: from that share on, images of that side are trained on,
            cut out at random or resized as ``shrink`` says. The network's last pooling must be global.

    Example:
        >>> import assay
        >>> recipe = assay.Recipe.parse({"name": "mine", "epochs": 2, "optimizer": {"name": "adamw", "lr": 1e-3}})
        >>> recipe.optimizer.betas
        (0.9, 0.999)
        >>> "betas" in recipe.to_toml(), "momentum" in recipe.to_toml()
        (True, False)
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
    optimizer: sections.OptimizerOptions = sections.SGDOptions()
    schedule: sections.ScheduleOptions = sections.DecaySchedule()
    augment: sections.AugmentOptions = sections.FlipCrop()
    clip: sections.ClipOptions = sections.Nothing()
    mix: sections.MixOptions = sections.Nothing()
    average: sections.AverageOptions = sections.AverageOptions()
    adversary: sections.AdversaryOptions = sections.Nothing()
    prune: sections.PruneOptions = sections.PruneOptions()
    finetune: sections.FinetuneOptions = sections.FinetuneOptions()
    sequence: sections.SequenceOptions = sections.SequenceOptions()
    needs: ClassVar[Needs] = {"shrink": ("resolution",)}

    @classmethod
    def parse(
        cls,
        values: dict[str, Any],
        *,
        where: str = "",
        overridden: Collection[Place] = (),
        may_drop: Callable[[Place], bool] = lambda place: False,
    ) -> Self:
        """Validate ``values``; raise :class:`OptionError` naming the first field that is wrong or has no effect.

        Options without effect for which ``may_drop`` is true are dropped. ``overridden`` ones were given by a flag.
        """
        values = copy.deepcopy(values)
        while True:
            try:
                return cls.model_validate(values)
            except ValidationError as error:
                errors = error.errors(include_url=False)
                refused = [_place(each) for each in errors if each["type"] in {"extra_forbidden", NO_EFFECT}]
                idle = [place for place in refused if may_drop(place)]
                if not idle:
                    raise _explain(error, where=where, overridden=overridden) from None
                for *section, option in idle:
                    del (values[section[0]] if section else values)[option]

    @classmethod
    def parse_saved(cls, values: dict[str, Any], *, where: str = "") -> Self:
        """The recipe that a run folder holds, of today's form or of the former one: see :data:`FORMER_DEFAULTS`."""
        return cls.parse(values, where=where, may_drop=_former_defaults(values, complete=False).__contains__)

    @model_validator(mode="before")
    @classmethod
    def _name_the_default_choices(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        chosen = {key: value for key, value in values.items() if key in CHOICES and isinstance(value, dict)}
        return {**values, **{k: {"name": cls.model_fields[k].get_default().name, **v} for k, v in chosen.items()}}

    @field_validator("micro_batch")
    @classmethod
    def _divides_the_batch(cls, size: int | None, info: ValidationInfo) -> int | None:
        batch = info.data.get("batch_size")
        if size is not None and batch is not None and batch > size and batch % size:
            raise ValueError(f"a number that divides the batch_size, {batch}")
        return size

    def image_options(self) -> dict[str, object]:
        """The settings that only images have, where they differ from none."""
        return {name: getattr(self, name) for name, none in IMAGE_OPTIONS.items() if getattr(self, name) != none}

    @field_validator("resolution")
    @classmethod
    def _every_stage_begins(cls, stages: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        starts = [start for start, _ in stages]
        if len(set(starts)) < len(starts) or 1 in starts:
            raise ValueError("stages that begin at different shares below 1")
        return stages

    def without_effect(self) -> Mapping[str, str]:
        options = self.image_options() if self.data in SEQUENCE_TASKS else ()
        idle = {**super().without_effect(), **dict.fromkeys(options, f"data is {self.data}, a task of sequences")}
        if self.micro_batch is not None and self.micro_batch >= self.batch_size:
            idle["micro_batch"] = f"batch_size is {self.batch_size}"
        if self.mix.name != "none" and 1 in (self.batch_size, self.micro_batch):
            idle["mix"] = "samples pass through the network one by one"
        return idle

    def settled(self, *, fast_bfloat16: bool) -> Recipe:
        """The same recipe with ``auto`` replaced by the precision that a machine gets."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": "bfloat16" if fast_bfloat16 else "float32"})

    def to_toml(self) -> str:
        """All fields that act as TOML, defaults spelled out; :func:`load_recipe` reads it back to an equal recipe."""
        values = self.model_dump(mode="json", exclude_none=True)
        others_options = IMAGE_OPTIONS.keys() - {"augment"} if self.data in SEQUENCE_TASKS else {"sequence"}
        for name in others_options & values.keys():
            if getattr(self, name) == type(self).model_fields[name].get_default():
                del values[name]
        lines = [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
        tables = [(key, value) for key, value in values.items() if isinstance(value, dict) and value]
        parts = ["\n".join([f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in value.items())]) for key, value in tables]
        return "\n\n".join(["\n".join(lines), *parts]) + "\n"


Place = tuple[str, ...]
"""Where an option is: (option,) or (section, option)."""

FORMER_DEFAULTS: dict[str, dict[str, Any]] = tomllib.loads("""
optimizer = {momentum = 0.9, nesterov = true, betas = [0.9, 0.999], decay_roles = ["weight"], unit_norm = false, \
newton_schulz_steps = 5, side_lr = 0.1, side_momentum = 0.9}
schedule = {warmup = 0.0, peak = 0.2, start = 0.2, final = 0.0, milestones = [], gamma = 0.1}
augment = {padding = 4, flip = true, policy = ""}
clip = {limit = 1.0}
mix = {alpha = 0.2}
adversary = {epsilon = 0.03137254901960784, step_size = 0.03137254901960784, steps = 1, noise = 2.0, watch = 256, \
gap = 0.25, fallback_steps = 2}
average = {every = 1}
prune = {start = 0.4, end = 1.0}
sequence = {length = 100, samples = 6400, test_samples = 2000}
"" = {shrink = "window", resolution = []}
""")
"""Recipes used to be written with all options of all choices, defaults spelled out: this is what stood there.

On reading such a recipe an option without effect is dropped where it holds this default, and refused where it does
not. A run folder is always read so; a section of a TOML file when it lists every one of these options.
"""


def _former_defaults(values: Mapping[str, Any], *, complete: bool) -> set[Place]:
    """The options that hold their former default; with ``complete`` only of sections that list every option."""
    places: set[Place] = set()
    for section, defaults in FORMER_DEFAULTS.items():
        given = values.get(section) if section else values
        if isinstance(given, dict) and (defaults.keys() <= given.keys() or not complete):
            equal = [option for option, default in defaults.items() if option in given and given[option] == default]
            places.update((section, option) if section else (option,) for option in equal)
    return places


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with assay."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml")))


@checked
def load_recipe(name_or_path: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or from a ``.toml`` file, then apply ``overrides``.

    An override may choose another optimizer, schedule, …: options of the file that the new choice does not have are
    dropped then, the others stay.

    Args:
        name_or_path: One of the recipes that come with assay, such as ``"digits"``, or the path of a ``.toml`` file.
        overrides: Changes such as ``"optimizer.lr=0.1"``; the value is read as TOML, a bare word as text.

    Returns:
        The recipe, every field checked.

    Raises:
        OptionError: The name is unknown, the file is no TOML, or a field is not valid.
        UnusedOptionError: An option in the file or among ``overrides`` has no effect.

    Example:
        >>> import assay
        >>> recipe = assay.load_recipe("digits", overrides=["optimizer.lr=0.1", "schedule.name=cosine"])
        >>> recipe.optimizer.lr, recipe.schedule.name
        (0.1, 'cosine')
    """
    where, text = _read(name_or_path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OptionError(where, expected="a TOML file", got=error) from None
    former = _former_defaults(values, complete=True)
    recipe = Recipe.parse(values, where=where, may_drop=former.__contains__)
    overridden = {_apply(values, override) for override in overrides}  # of one given twice, the last holds
    if overridden:
        recipe = Recipe.parse(
            values, where=where, overridden=overridden, may_drop=lambda place: not _overrides_of(place, overridden)
        )
    if "data" in values and recipe.data not in SEQUENCE_TASKS:
        for place in sorted({("sequence", option) for option in values.get("sequence", {})} - former):
            raise UnusedOptionError(_spell(place, where, overridden), reason=f"no effect while data is {recipe.data}")
    return recipe


def _read(name_or_path: str | Path) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix == ".toml" or len(path.parts) > 1:
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError("recipe", expected=f"a readable file {path}", got=error) from None
    if str(name_or_path) not in recipe_names():
        raise OptionError("recipe", expected=f"one of {', '.join(recipe_names())}, or a .toml file", got=name_or_path)
    return f"recipe {name_or_path}", (_FOLDER / f"{name_or_path}.toml").read_text(encoding="utf-8")


def _apply(values: dict[str, Any], override: str) -> Place:
    """Write ``section.key=value`` into nested ``values``, and return its place."""
    key, equals, text = override.partition("=")
    *path, option = (part.strip() for part in key.split("."))
    if not equals or not option or not all(path):
        raise OptionError("--set", expected="key=value, such as optimizer.lr=0.1", got=override)
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for section in path:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise OptionError("--set", expected=f"{section} to be a section", got=override)
    values[option] = value
    return (*path, option)


def _place(complaint: ErrorDetails) -> Place:
    """The option that pydantic complains about: of a choice, the location also holds the name chosen."""
    place = tuple(str(part) for part in complaint["loc"])
    if place and place[0] in CHOICES:
        place = (place[0], *place[2:])
    if complaint["type"] == NO_EFFECT:
        return (*place, complaint["ctx"]["option"])
    return (*place, "name") if complaint["type"] == "union_tag_invalid" else place


def _explain(error: ValidationError, *, where: str, overridden: Collection[Place]) -> OptionError:
    """Pydantic's first complaint in one line."""
    first = error.errors(include_url=False)[0]
    place, kind = _place(first), first["type"]
    spelled = _spell(place, where, overridden)
    if kind == NO_EFFECT:
        return UnusedOptionError(spelled, reason=first["msg"])
    if kind == "union_tag_invalid":
        expected = _list([repr(name) for name in CHOICES[place[0]]], "or")
        return OptionError(spelled, expected=expected, got=repr(first["input"].get("name")))
    if kind == "extra_forbidden" and place[0] in CHOICES:
        choices, chosen = CHOICES[place[0]], str(first["loc"][1])
        own = ", ".join(name for name in choices[chosen].model_fields if name != "name") or "no options"
        holders = [name for name, choice in choices.items() if place[1] in choice.model_fields]
        known = f"; {_list(holders, 'and')} {'have' if len(holders) > 1 else 'has'} it" if holders else ""
        return UnusedOptionError(spelled, reason=f"not an option of {chosen} (it has {own}){known}")
    return option_error(error, where=spelled, field="")


def _spell(place: Place, where: str, overridden: Collection[Place]) -> str:
    """``where: section.option``, or the flag where the option was given by one."""
    if flags := _overrides_of(place, overridden):
        return f"--set {'.'.join(flags[0] if len(flags[0]) > len(place) else place)}"
    return ": ".join(part for part in (where, ".".join(place)) if part)


def _overrides_of(place: Place, overridden: Collection[Place]) -> list[Place]:
    """The overrides that gave ``place``, the section that it is in, or a part of it."""
    return sorted(each for each in overridden if each[: len(place)] == place[: len(each)])


def _list(names: Sequence[str], word: str) -> str:
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)  # numbers, text, and lists of them are spelled as in TOML
