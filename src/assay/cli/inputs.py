"""The one place where the verbs open their model and data, and where the notes on both are printed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import InputError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from torch import nn

    from assay.cli.options import Inputs
    from assay.data.dataset import ImageDataset
    from assay.models.sources import LoadedModel
    from assay.records.training import TrainingRun
    from assay.views.context import ViewContext

RECORD = "inputs.json"  # of a run folder: the data that it was made from, as the command line spelled it
TRAINED_ON_DIGITS = "speednet trained on digits"


@dataclass(frozen=True, eq=False)
class OpenedInputs:
    """The model on its device, its images, its name, the notes printed, and how a run folder was trained."""

    model: nn.Module
    dataset: ImageDataset
    name: str
    notes: tuple[str, ...]
    history: tuple[TrainingRun, ...] = ()


def open_inputs(inputs: Inputs, console: Console) -> OpenedInputs:
    """Load data and model and print the notes on them; without a model, train a small one on the digits.

    Raises :class:`OptionError` for a device or data that is not there, and what loading either raises.
    """
    from assay.runtime import choose_device

    inputs = resolve_data(inputs)
    device = choose_device(inputs.device)  # refused before any work
    dataset = open_data(inputs, console)
    if inputs.model is None:
        from assay.cli.progress import TrainingProgress
        from assay.data.sources import load_dataset
        from assay.training.classifier import train_classifier
        from assay.training.recipes import load_recipe

        with TrainingProgress(console) as progress:
            train = load_dataset("digits", split="train")
            trained = train_classifier(train, recipe=load_recipe("digits"), seed=inputs.seed, on_step=progress.step)
        return OpenedInputs(trained.model.to(device), dataset, TRAINED_ON_DIGITS, data_notes(dataset), (trained.run,))
    loaded = open_model(inputs, console, dataset=dataset)
    notes = (*data_notes(dataset), *model_notes(loaded, dataset))
    return OpenedInputs(loaded.model.to(device), dataset, inputs.model, notes, _training_history(inputs.model))


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
        raise OptionError("--data", expected="the images to test on, such as cifar10 or a folder", got="nothing")
    data_dir = recorded.get("data_dir")
    return replace(
        inputs,
        data=recorded["data"],
        data_dir=inputs.data_dir or (None if data_dir is None else Path(data_dir)),
        image_size=inputs.image_size or recorded.get("image_size"),
        max_bad=inputs.max_bad or recorded.get("max_bad", 0),
    )


def open_data(inputs: Inputs, console: Console, *, printed: Sequence[str] = ()) -> ImageDataset:
    """The images of ``inputs`` alone, with notes on the pictures that could not be read, except those ``printed``."""
    from assay.data.sources import load_dataset

    dataset = load_dataset(
        inputs.data or "digits",
        split=inputs.split,
        data_dir=inputs.data_dir,
        limit=inputs.limit,
        max_bad=inputs.max_bad,
        image_size=inputs.image_size,
    )
    print_notes([note for note in data_notes(dataset) if note not in printed], console)
    return dataset


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
    from assay.models import sources

    loaded = sources.open_model(
        inputs.model or "",
        weights=inputs.weights,
        classes=classes if dataset is None else len(dataset.classes),
        image_shape=image_shape if dataset is None else dataset.shape,
        normalization=inputs.normalization,
        seed=seed,
    )
    print_notes(model_notes(loaded, dataset), console)
    return loaded


def open_view(inputs: Inputs, console: Console) -> ViewContext:
    """Both, as the app and ``assay look`` take them; the seed of an attack changes neither."""
    from assay.views.context import ViewContext

    inputs = replace(resolve_data(inputs), seed=0)
    opened = open_inputs(inputs, console)
    return ViewContext(opened.model, opened.dataset, name=opened.name, words=inputs.words)


def data_notes(dataset: ImageDataset) -> tuple[str, ...]:
    """The notes on a data set: the pictures that could not be read."""
    unreadable = dataset.skipped
    if not unreadable:
        return ()
    pictures = "1 picture" if len(unreadable) == 1 else f"{len(unreadable)} pictures"
    return (f"{pictures} could not be read: {'; '.join(unreadable)}",)


def model_notes(loaded: LoadedModel, dataset: ImageDataset | None = None) -> tuple[str, ...]:
    """The notes on a model, such as random weights, and on classes that differ from those of the data."""
    names = loaded.class_names
    if dataset is None or names is None or names == dataset.classes:
        return loaded.notes
    how = "in another order" if sorted(names) == sorted(dataset.classes) else "under other names"
    guess = (
        f"{dataset.name} has the classes of {loaded.name} {how}: outputs and labels are matched by position, a guess"
    )
    return (*loaded.notes, guess)


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
    }
    write_atomically(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def recorded_data(folder: Path) -> dict[str, Any] | None:
    """The data of a run folder as :func:`record_data` wrote them, else the name in ``config.json``; None without."""
    for name in (RECORD, "config.json"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            if name == RECORD:
                return {**content, "data": str(content["data"])}
            return {"data": str(content["data"]["name"])}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


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
