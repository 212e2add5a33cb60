"""``assay check``: put a model to the test and write the report."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import arguments as arg
from assay.errors import InputError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from torch import nn

    from assay.data.dataset import ImageDataset
    from assay.records.checkup import Checkup
    from assay.records.training import TrainingRun


class BudgetName(StrEnum):
    """How much work a check may spend."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"


class FailOn(StrEnum):
    """The mildest verdict that makes the exit code 1."""

    WARN = "warn"
    ERROR = "error"
    NEVER = "never"


class Extra(StrEnum):
    """Machine-readable files to write beside the report."""

    JUNIT = "junit"
    SARIF = "sarif"


def check(
    model: Annotated[
        str | None,
        typer.Argument(
            help="The model (see below). Without one, a small network is trained on the digits first.",
            show_default=False,
        ),
    ] = None,
    weights: arg.Weights = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="The images to test on: digits, cifar10, a folder, *.parquet, *.npz, … A run folder brings its own.",
            show_default=False,
        ),
    ] = None,
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    out: Annotated[Path, typer.Option(help="Folder for report.html and check.json.")] = Path("assay-report"),
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Attack and probe only the first N samples; the clean accuracy uses all the budget allows.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[BudgetName, typer.Option(help="How much work to spend.")] = BudgetName.STANDARD,
    fail_on: Annotated[FailOn, typer.Option(help="Exit with 1 when a verdict is at least this bad.")] = FailOn.ERROR,
    formats: Annotated[
        list[Extra] | None,
        typer.Option("--format", help="Write this too, beside the report; may be repeated.", show_default=False),
    ] = None,
    normalization: arg.Normalization = None,
    image_size: arg.ImageSize = None,
    max_bad: arg.MaxBad = 0,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Take over what an interrupted check finished.")] = False,
) -> None:
    """Put a model to the test: accuracy, attacks, gradients, modes, spectra. Writes one page that says what holds.

    MODEL is a run folder of `assay train`, an architecture (resnet20, allcnn, …) with --weights, torchvision:NAME,
    timm:NAME, path/to/file.py:factory, or package.module:factory.

    Exit codes: 0 nothing found, 1 findings at or above --fail-on, 2 usage or input error, 3 interrupted (--resume).
    """
    from rich.console import Console

    from assay.check import BUDGETS, run_check
    from assay.cli.progress import StageProgress
    from assay.files import make_folder
    from assay.report.text import print_summary

    errors = Console(stderr=True)
    if model is None and data not in {None, "digits"}:
        raise OptionError("MODEL", expected=f"a model to test on {data}", got="none (only the digits need none)")
    dataset, network, history = _prepare(
        model,
        weights=weights,
        data=data,
        data_dir=data_dir,
        split=split,
        normalization=normalization,
        image_size=image_size,
        max_bad=max_bad,
        seed=seed,
        device=device,
        console=errors,
        out=out,
    )
    folder = make_folder(out)
    with StageProgress(errors) as progress:
        checkup = run_check(
            network,
            dataset,
            name=model or "speednet trained on digits",
            weights=None if weights is None else weights.name,
            budget=BUDGETS[budget.value],
            limit=limit,
            seed=seed,
            context=history,
            folder=folder,
            resume=resume,
            on_stage=progress.show,
        )
    _write(checkup, folder, formats=formats or ())
    print_summary(checkup, Console())
    typer.echo(f"Report: {folder / 'report.html'}")
    if fail_on is not FailOn.NEVER:
        bad = {"error"} if fail_on is FailOn.ERROR else {"error", "warn"}
        if any(verdict.status in bad for verdict in checkup.verdicts):
            raise typer.Exit(1)


def _prepare(
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
    out: Path,
) -> tuple[ImageDataset, nn.Module, Sequence[TrainingRun]]:
    from assay.data.sources import load_dataset
    from assay.models.loading import open_model
    from assay.runtime import choose_device

    target = choose_device(device)
    dataset = load_dataset(
        data or data_of(model), split=split, data_dir=data_dir, max_bad=max_bad, image_size=image_size
    )
    for line in dataset.skipped:
        console.print(f"skipped: {line}", style="yellow", markup=False)
    if model is None:
        from assay.check.default import train_on_digits
        from assay.cli.progress import TrainingProgress

        with TrainingProgress(console) as progress:
            network, run = train_on_digits(seed=seed, on_step=progress.step)
        return dataset, network.to(target), (run,)
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


def _write(checkup: Checkup, folder: Path, *, formats: Sequence[Extra]) -> None:
    from assay.files import write_atomically

    # First what cannot be had again: the pages can be drawn from it at any time.
    write_atomically(folder / "check.json", checkup.model_dump_json(indent=1))
    from assay.report.junit import render_junit
    from assay.report.page import render_page
    from assay.report.sarif import render_sarif

    write_atomically(folder / "report.html", render_page(checkup))
    if Extra.JUNIT in formats:
        write_atomically(folder / "check.junit.xml", render_junit(checkup))
    if Extra.SARIF in formats:
        write_atomically(folder / "check.sarif", render_sarif(checkup))
