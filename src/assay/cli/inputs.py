"""From what the command line names to a model and its images, ready to be checked."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.errors import InputError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from torch import nn

    from assay.data.dataset import ImageDataset
    from assay.records.checkup import Checkup
    from assay.records.training import TrainingRun
    from assay.views.subject import Subject


def check_model(
    model: str,
    *,
    data: str | None,
    data_dir: Path | None,
    split: str,
    budget: str,
    limit: int | None,
    normalization: str | None,
    image_size: int | None,
    seed: int,
    device: str,
    console: Console,
) -> Checkup:
    """Load and check the model that ``model`` names, with the progress on ``console``."""
    from assay.check import BUDGETS, run_check
    from assay.cli.progress import StageProgress

    dataset, network, history = prepare(
        model,
        weights=None,
        data=data,
        data_dir=data_dir,
        split=split,
        normalization=normalization,
        image_size=image_size,
        max_bad=0,
        seed=seed,
        device=device,
        console=console,
    )
    with StageProgress(console) as progress:
        return run_check(
            network,
            dataset,
            name=model,
            budget=BUDGETS[budget],
            limit=limit,
            seed=seed,
            history=history,
            on_stage=progress.show,
        )


def prepare(
    model: str | None,
    *,
    weights: Path | None,
    data: str | None,
    data_dir: Path | None,
    split: str,
    normalization: str | None,
    image_size: int | None,
    max_bad: int,
    seed: int,
    device: str,
    console: Console,
    limit: int | None = None,
) -> tuple[ImageDataset, nn.Module, Sequence[TrainingRun]]:
    """The images, the model on its device, and how it was trained where that is known; notes go to ``console``.

    Without a model, a small network is trained on the digits. Raises what loading either raises.
    """
    from assay.data.sources import load_dataset
    from assay.models.sources import open_model
    from assay.runtime import choose_device

    target = choose_device(device)
    dataset = load_dataset(
        data or data_of(model), split=split, data_dir=data_dir, limit=limit, max_bad=max_bad, image_size=image_size
    )
    for line in dataset.skipped:
        console.print(f"skipped: {line}", style="yellow", markup=False)
    if model is None:
        from assay.cli.progress import TrainingProgress
        from assay.training.classifier import train_classifier
        from assay.training.recipes import load_recipe

        with TrainingProgress(console) as progress:
            train = load_dataset("digits", split="train")
            trained = train_classifier(train, recipe=load_recipe("digits"), seed=seed, on_step=progress.step)
        return dataset, trained.model.to(target), (trained.run,)
    opened = open_model(
        model,
        weights=weights,
        classes=len(dataset.classes),
        image_shape=dataset.shape,
        normalization=normalization,
    )
    for note in opened.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    return dataset, opened.model.to(target), _history_of(model)


def _history_of(model: str) -> tuple[TrainingRun, ...]:
    """How a run folder's model was trained; nothing for any other model."""
    from pydantic import ValidationError

    from assay.records.training import TrainingRun

    record = Path(model) / "training.json"
    if not record.is_file():
        return ()
    try:
        return (TrainingRun.model_validate_json(record.read_bytes()),)
    except ValidationError as error:
        found = error.errors()[0]["msg"]
        raise InputError(str(record), expected="the record of a training run", got=found) from None


def data_of(model: str | None) -> str:
    """What a run folder was trained on; the digits when there is no model either."""
    if model is None:
        return "digits"
    config = Path(model) / "config.json"
    if config.is_file():
        try:
            return str(json.loads(config.read_text())["data"]["name"])
        except (ValueError, KeyError, TypeError):
            pass
    raise OptionError("--data", expected="the images to test on, such as cifar10 or a folder", got="nothing")


Model = Annotated[
    str,
    typer.Argument(
        help="A run folder, an architecture (resnet20, allcnn, …), torchvision:NAME, timm:NAME, "
        "path/to/file.py:factory, or package.module:factory.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights for the architecture: .safetensors, or a checkpoint that loads with weights_only.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="digits, cifar10, mnist, fashion-mnist, a folder of class folders, "
        "*.parquet, *.npz, IDX files, or hf:owner/name."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where named data sets are looked for first; then $ASSAY_DATA, then the cache.", show_default=False
    ),
]
Split = Annotated[str, typer.Option(help="The part of the data to use: test or train.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first N samples.", show_default=False)]
MaxBad = Annotated[int, typer.Option(min=0, help="Skip up to this many broken images; each is named.")]
Seed = Annotated[int, typer.Option(help="Every random choice follows from this number.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Resize the short side to this, then crop the centre.", show_default=False),
]
Normalization = Annotated[
    str | None,
    typer.Option(
        help="Of an architecture of ours: imagenet (the default for colour), cifar10, none, or m1,m2,m3/s1,s2,s3.",
        show_default=False,
    ),
]
BaselineFile = Annotated[
    Path | None,
    typer.Option(
        "--baseline", help="Accepted findings (see `assay accept`): shown, but they do not fail.", show_default=False
    ),
]


def open_subject(
    model: str | None,
    *,
    weights: Path | None,
    data: str | None,
    data_dir: Path | None,
    split: str,
    limit: int | None,
    normalization: str | None,
    image_size: int | None,
    max_bad: int,
    device: str,
    console: Console,
) -> Subject:
    """Load both; ``words`` of the result are the options that were given, so that a printed command finds them again.

    Raises :class:`OptionError` for other data than the digits without a model, and what loading raises.
    """
    from assay.views.subject import Subject

    if model is None and data not in {None, "digits"}:
        raise OptionError("MODEL", expected=f"a model for {data}", got="none (only the digits need none)")
    if model is None and weights is not None:
        raise OptionError("MODEL", expected="an architecture for the weights", got="none")
    source = data or data_of(model)
    dataset, network, _ = prepare(
        model,
        weights=weights,
        data=source,
        data_dir=data_dir,
        split=split,
        limit=limit,
        normalization=normalization,
        image_size=image_size,
        max_bad=max_bad,
        seed=0,
        device=device,
        console=console,
    )
    options = {
        "--weights": weights,
        "--data": source,
        "--data-dir": data_dir,
        "--split": None if split == "test" else split,
        "--image-size": image_size,
        "--normalization": normalization,
    }
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    named = () if model is None else (model,)
    return Subject(network, dataset, name=model or "speednet trained on digits", words=(*named, *words))


class BudgetName(StrEnum):
    """How much work a check may spend."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"
