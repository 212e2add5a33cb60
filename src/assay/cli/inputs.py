"""The one place where the verbs open their model and data, and where the notes on both are printed."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field

from assay.errors import DataError, InputError, OptionError
from assay.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from torch import nn

    from assay.cli.options import Inputs
    from assay.data.dataset import ImageDataset
    from assay.data.together import Arrange
    from assay.models.sources import LoadedModel
    from assay.records.base import Record
    from assay.records.preparation import Preparation
    from assay.records.provenance import Provenance
    from assay.records.training import TrainingRun
    from assay.runtime.processes import Processes
    from assay.runtime.sharding import Shard
    from assay.views.context import ViewContext

RECORD = "inputs.json"  # of a run folder: the data that it was made from, as the command line spelled it
EXAMPLES = 16  # images that a converted program is compared with the original on
TRAINED_ON_DIGITS = "speednet trained on digits"


@dataclass(frozen=True, eq=False)
class OpenedInputs:
    """The model on its device, its images, its name, the notes printed, and how a run folder was trained.

    ``titles`` are words for the classes of the images, where those are ids of synsets that the model names.
    """

    model: nn.Module
    dataset: ImageDataset
    name: str
    notes: tuple[str, ...]
    history: tuple[Record, ...] = ()
    titles: tuple[str, ...] | None = None

    @property
    def titled(self) -> ImageDataset:
        """The images under names that a reader understands, where there are such."""
        if self.titles is None or len(self.titles) != len(self.dataset.classes):
            return self.dataset
        return self.dataset.renumbered(range(len(self.titles)), classes=self.titles)


def open_inputs(
    inputs: Inputs, console: Console, *, shard: Shard | None = None, processes: Processes | None = None
) -> OpenedInputs:
    """Load data and model and print the notes on them; without a model, train a small one on the digits.

    Of the data only the samples of the ``shard`` are decoded. Several ``processes`` read them together.

    Raises :class:`OptionError` for a device or data that is not there, and what loading either raises.
    """
    from assay.runtime import choose_device

    inputs = resolve_data(inputs)
    device = choose_device(inputs.device)  # refused before any work
    dataset = open_data(inputs, console, shard=shard, processes=processes)
    if inputs.model is None:
        from assay.cli.progress import TrainingProgress
        from assay.data.sources import load_dataset
        from assay.records.provenance import Provenance
        from assay.training.classifier import train_classifier
        from assay.training.recipes import load_recipe

        with TrainingProgress(console) as progress:
            train = load_dataset("digits", split="train")
            trained = train_classifier(train, recipe=load_recipe("digits"), seed=inputs.seed, on_step=progress.step)
        known = Provenance(random="none", trained_on="digits", tested_on_training=inputs.split == "train")
        model, notes = trained.model.to(device), data_notes(dataset)
        return OpenedInputs(model, dataset, TRAINED_ON_DIGITS, notes, (trained.run, known))
    loaded = open_model(inputs, console, dataset=dataset)
    if loaded.columns is not None and loaded.class_names is not None:
        dataset = dataset.renumbered(loaded.columns, classes=loaded.class_names)
    notes = (*data_notes(dataset), *model_notes(loaded, dataset, inputs))
    history = (*_training_history(inputs.model), _provenance(inputs, loaded, dataset))
    return OpenedInputs(loaded.model.to(device), dataset, inputs.model, notes, history, loaded.titles)


def resolve_data(inputs: Inputs) -> Inputs:
    """The same with ``data`` filled in: a run folder's own, with its preparation, or the digits without a model.

    Raises :class:`OptionError` where a model needs data and none is known, and for other data without a model.
    """
    if inputs.model is None:
        if inputs.data not in {None, "digits"}:
            expected = f"a model for {inputs.data}"
            raise OptionError("MODEL", expected=expected, got="none (only the digits need none)")
        if inputs.weights is not None:
            raise OptionError("MODEL", expected="an architecture for the weights", got="none")
        return replace(inputs, data="digits")
    if inputs.data is not None:
        return inputs
    recorded = recorded_data(Path(inputs.model))
    if recorded is None:
        from assay.models.sources import find_blueprint
        from assay.models.sources.blueprint import ModelRequest

        find_blueprint(inputs.model, ModelRequest(trust_code=inputs.trust_code))  # what names no model is told first
        raise OptionError("--data", expected="the images to test on, such as cifar10 or a folder", got="nothing")
    return fill_in(inputs, recorded)


def name_inputs(inputs: Inputs) -> dict[str, str]:
    """The model, the data and both, as on a command line; MODEL where a network was trained first."""
    model = "MODEL" if inputs.model is None else shlex.quote(inputs.model)
    words = inputs.words if inputs.model is not None else (model, *inputs.words)
    weights = f" --weights {shlex.quote(str(inputs.weights))}" if inputs.weights else ""
    return {"model": model + weights, "data": shlex.quote(inputs.data or "digits"), "both": shlex.join(words)}


def fill_in(inputs: Inputs, recorded: RecordedData) -> Inputs:
    """``inputs`` with the data of a run folder, and their preparation where none is given."""
    return replace(
        inputs,
        data=recorded.data,
        data_dir=inputs.data_dir or recorded.data_dir,
        image_size=inputs.image_size or (None if inputs.prepare else recorded.image_size),
        prepare=inputs.prepare or (None if inputs.image_size else recorded.prepare),
        max_bad=inputs.max_bad or recorded.max_bad,
        **{name: given or getattr(recorded, name) for name, given in table_options(inputs).items()},
    )


def open_data(
    inputs: Inputs,
    console: Console,
    *,
    printed: Sequence[str] = (),
    prepare: Preparation | None = None,
    shard: Shard | None = None,
    processes: Processes | None = None,
    arrange: Arrange | None = None,
) -> ImageDataset:
    """The images of ``inputs`` alone, with notes on the pictures that could not be read, except those ``printed``.

    ``prepare`` is how they are prepared, in place of what ``inputs`` and the source of the model say. Of several
    ``processes`` each decodes its share; ``arrange`` gives the order in which they hold the samples.
    """
    from assay.data.sources import load_dataset
    from assay.data.together import read_together
    from assay.runtime.processes import ALONE

    read = partial(
        load_dataset,
        inputs.data or "digits",
        split=inputs.split,
        data_dir=inputs.data_dir,
        limit=inputs.limit,
        max_bad=inputs.max_bad,
        **table_options(inputs),
        image_size=inputs.image_size,
        prepare=prepare or preparation_for(inputs),
    )
    try:
        if shard is None:
            dataset = read_together(lambda share: read(shard=share), processes or ALONE, arrange=arrange)
        else:
            dataset = read(shard=shard)
    except DataError as error:
        if not _is_own_data(inputs):
            raise
        got = f"{error.got} (the data that {inputs.model} was made from: where they are elsewhere now, name --data)"
        raise DataError(error.where, expected=error.expected, got=got) from None
    print_notes([note for note in data_notes(dataset) if note not in printed], console)
    return dataset


def open_training_images(spec: str, inputs: Inputs, dataset: ImageDataset, console: Console) -> ImageDataset:
    """The training split of ``spec``, prepared as ``dataset``, to find its pictures in; with notes.

    Raises :class:`DataError` where there is none, or where it is the very set that is tested.
    """
    from assay.data.sources import load_dataset

    train = load_dataset(
        spec,
        split="train",
        data_dir=inputs.data_dir,
        image_size=inputs.image_size,
        max_bad=inputs.max_bad,
        **(table_options(inputs) if spec == inputs.data else {}),
        prepare=dataset.preparation if inputs.image_size is None else None,
    )
    if spec == inputs.data and train.split == dataset.split:
        expected = "other images than those that are looked up"
        raise DataError(f"--against {spec}", expected=expected, got=f"the same, its split {train.split}")
    print_notes([f"training images: {note}" for note in data_notes(train)], console)
    return train


def table_options(inputs: Inputs) -> dict[str, Any]:
    """The options of tables, as :func:`assay.load_dataset` takes them."""
    from assay.cli.options import TABLE_OPTIONS

    return {name: getattr(inputs, name) for name in TABLE_OPTIONS}


def preparation_for(inputs: Inputs) -> Preparation | None:
    """How the pictures are prepared: as ``--prepare`` states, else as the source of the model does, if it does.

    Raises :class:`OptionError` for what is stated twice.
    """
    from assay.models.sources import find_preparation, parse_preparation

    stated = parse_preparation(inputs.prepare, normalization=inputs.normalization, where="--prepare")
    if stated is not None and stated.is_geometric and inputs.image_size is not None:
        raise OptionError("--image-size", expected="either it or the sizes of --prepare", got="both")
    return (
        stated if inputs.model is None else find_preparation(inputs.model, prepare=stated, trust_code=inputs.trust_code)
    )


def align_classes(dataset: ImageDataset, classes: tuple[str, ...]) -> ImageDataset:
    """``dataset`` with its labels numbered as in ``classes``, those of another split, matched by name.

    Raises :class:`DataError` for classes that are not among them.
    """
    from assay.errors import ModelError
    from assay.models.classes import few, match_classes

    if dataset.classes == classes:
        return dataset
    where = f"{dataset.name}, {dataset.split}"
    try:
        matched = match_classes([classes], dataset.classes, where=where)
    except ModelError as error:
        raise DataError(where, expected=f"the classes of the training images, {few(classes)}", got=error.got) from None
    return dataset.renumbered(matched.columns, classes=classes)


def open_model(
    inputs: Inputs,
    console: Console,
    *,
    dataset: ImageDataset | None = None,
    classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> LoadedModel:
    """The model of ``inputs`` alone, built for ``dataset``, or for ``classes`` and ``image_shape``.

    ``seed`` is that of random weights, and not the seed of the verb's own choices: an attack with another seed is an
    attack on the same model.
    """
    from assay.cli.options import MatchClasses, ScoreOver
    from assay.data.dataset import to_unit_range
    from assay.models import sources
    from assay.models.calls import notes_on
    from assay.models.sources import parse_preparation
    from assay.runtime import keep_freed_memory

    keep_freed_memory()  # before the first large tensor of a verb
    loaded = sources.open_model(
        inputs.model or "",
        weights=inputs.weights,
        classes=classes if dataset is None else dataset.classes,
        image_shape=image_shape if dataset is None else dataset.shape,
        normalization=inputs.normalization,
        prepare=parse_preparation(inputs.prepare, where="--prepare"),
        match_classes="position" if inputs.match_classes is MatchClasses.POSITION else "name",
        class_names=None if inputs.classes is None else read_names(inputs.classes),
        score_over="all" if inputs.score_over is ScoreOver.ALL else "subset",
        seed=seed,
        trust_code=inputs.trust_code,
        examples=None if dataset is None else to_unit_range(dataset.images[:EXAMPLES]),
    )
    if dataset is not None:
        names = dataset.classes if loaded.columns is None or loaded.class_names is None else loaded.class_names
        reading = notes_on(loaded.model, to_unit_range(dataset.images[:2]), classes=names)
        loaded = replace(loaded, notes=(*loaded.notes, *reading))
    print_notes(loaded.notes if dataset is None else model_notes(loaded, dataset, inputs), console)
    return loaded


def read_names(given: str) -> tuple[tuple[str, ...], ...]:
    """The names that ``--classes`` gives, a file or ``imagenet``. Raises :class:`OptionError`."""
    from assay.models.classes import read_class_names
    from assay.models.sources.library import imagenet_names

    return imagenet_names() if given == "imagenet" and not Path(given).exists() else read_class_names(Path(given))


def open_view(inputs: Inputs, console: Console) -> ViewContext:
    """Both, as the app and ``assay look`` take them; the seed of an attack changes neither."""
    from assay.views.context import ViewContext

    inputs = replace(resolve_data(inputs), seed=0)
    opened = open_inputs(inputs, console)
    return ViewContext(opened.model, opened.titled, name=opened.name, words=inputs.words)


def data_notes(dataset: ImageDataset) -> tuple[str, ...]:
    """The notes on a data set: the pictures that could not be read, and what reading left out or guessed."""
    unreadable, preparation, notes = dataset.skipped, dataset.preparation, dataset.notes
    if preparation is not None and preparation.rounding != "assay":  # --image-size says it itself
        notes = (f"pictures are prepared by {preparation.spelled} ({preparation.source})", *notes)
    if not unreadable:
        return notes
    pictures = "1 picture" if len(unreadable) == 1 else f"{len(unreadable)} pictures"
    return (f"{pictures} could not be read: {'; '.join(unreadable)}", *notes)


def model_notes(loaded: LoadedModel, dataset: ImageDataset, inputs: Inputs) -> tuple[str, ...]:
    """The notes on a model, such as random weights; equal numbers as names of classes are told to be a guess."""
    from assay.models.classes import MatchedClasses, are_numbers

    alike = loaded.class_names == dataset.classes and not isinstance(loaded.model, MatchedClasses)
    if alike and are_numbers(dataset.classes) and not _is_own_data(inputs):
        guess = f"the classes of {loaded.name} and of {dataset.name} are numbers: matched as they are, a guess"
        return (*loaded.notes, guess)
    return loaded.notes


def print_notes(notes: Sequence[str], console: Console) -> None:
    """Print each note as one line."""
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def record_data(folder: Path, inputs: Inputs) -> None:
    """Write down in a run folder which data it was made from, so that every verb finds them again."""
    from assay.files import write_atomically

    data = inputs.data or "digits"
    place = Path(data).expanduser()
    record = {
        "data": str(place.resolve()) if place.exists() else data,
        "data_dir": None if inputs.data_dir is None else str(inputs.data_dir.resolve()),
        "image_size": inputs.image_size,
        "max_bad": inputs.max_bad,
        **{name: value for name, value in table_options(inputs).items() if name != "root" and value is not None},
        **({} if inputs.root is None else {"root": str(inputs.root.expanduser().resolve())}),
        **({} if inputs.prepare is None else {"prepare": inputs.prepare}),
        **({} if inputs.weights is None else {"weights": str(inputs.weights.resolve())}),
    }
    write_atomically(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


class RecordedData(Options):
    """What ``inputs.json`` of a run folder says of its data: where they are, and how they were prepared.

    ``weights`` is the file that the training began with.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    data: str
    data_dir: Path | None = None
    image_size: Annotated[int, Field(ge=1)] | None = None
    prepare: str | None = None
    weights: Path | None = None
    max_bad: Annotated[int, Field(ge=0)] = 0
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    root: Path | None = None


def recorded_data(folder: Path) -> RecordedData | None:
    """The data of a run folder as :func:`record_data` wrote them, else the name in ``config.json``; None without.

    Raises :class:`OptionError` for a record that is damaged.
    """
    path = folder / RECORD
    if path.is_file():
        try:
            return RecordedData.parse(json.loads(path.read_text(encoding="utf-8")), where=str(path))
        except OSError as error:
            raise OptionError(str(path), expected="a file that can be read", got=error.strerror or error) from None
        except ValueError as error:
            raise OptionError(str(path), expected="JSON", got=error) from None
    try:
        return RecordedData(data=str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["data"]["name"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _provenance(inputs: Inputs, loaded: LoadedModel, dataset: ImageDataset) -> Provenance:
    """What is known of the weights, and of a run folder whether the tested images are those of its training."""
    from assay.records.provenance import Provenance

    recorded = None if inputs.model is None else recorded_data(Path(inputs.model))
    if recorded is None or inputs.data is None:
        return Provenance(random=loaded.random)
    place = Path(inputs.data).expanduser()
    same = recorded.data in {inputs.data, str(place.resolve())}
    return Provenance(
        random=loaded.random,
        trained_on=Path(recorded.data).name,
        tested_on_training=same and dataset.split in {"train", "all"},
    )


def _is_own_data(inputs: Inputs) -> bool:
    """Whether the data are those that the run folder was made from."""
    recorded = None if inputs.model is None else recorded_data(Path(inputs.model))
    return recorded is not None and inputs.data in {None, recorded.data}


def _training_history(model: str) -> tuple[TrainingRun, ...]:
    """How a run folder's model was trained; nothing for any other model."""
    from pydantic import ValidationError

    from assay.records.training import TrainingRun

    record = Path(model) / "training.json"
    if not record.is_file():
        return ()
    try:
        return (TrainingRun.model_validate_json(record.read_bytes()),)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise InputError(str(record), expected="the record of a training run", got=message) from None
