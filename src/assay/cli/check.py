"""``assay check``: put a model to the test and write the report."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.cli.inputs import BudgetName
from assay.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.records.checkup import Checkup
    from assay.records.finding import FailAt


class FailOn(StrEnum):
    """The mildest verdict that makes the exit code 1."""

    WARN = "warn"
    ERROR = "error"
    NEVER = "never"


_LEVELS: dict[FailOn, FailAt] = {FailOn.WARN: "warn", FailOn.ERROR: "error", FailOn.NEVER: "never"}


class Extra(StrEnum):
    """Machine-readable files to write beside the report; ``json`` is check.json, which is always written."""

    JSON = "json"
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
    baseline: arg.BaselineFile = None,
    normalization: arg.Normalization = None,
    image_size: arg.ImageSize = None,
    max_bad: arg.MaxBad = 0,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
    apply_fixes: Annotated[
        bool,
        typer.Option(
            "--apply-fixes", help="Apply the fixes there are to copies of the model, measure again, keep the weights."
        ),
    ] = False,
    fix_data: Annotated[
        str | None,
        typer.Option(help="Images to fix with; the training split of --data by default.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take over what an interrupted check finished.")] = False,
) -> None:
    """Put a model to the test: accuracy, attacks, gradients, modes, spectra. Writes one page that says what holds.

    MODEL is a run folder of `assay train`, an architecture (resnet20, allcnn, …) with --weights, torchvision:NAME,
    timm:NAME, path/to/file.py:factory, or package.module:factory.

    Exit codes: 0 nothing found, 1 findings at or above --fail-on, 2 usage or input error, 3 interrupted (--resume).
    """
    from rich.console import Console

    from assay.check import BUDGETS, run_check
    from assay.cli.inputs import data_of, prepare
    from assay.cli.progress import StageProgress
    from assay.files import exclusive, make_folder
    from assay.records.reading import read_baseline
    from assay.report.terminal.check import print_summary
    from assay.runtime.processes import joined_processes
    from assay.verdict.baseline import apply_baseline

    if model is None and data not in {None, "digits"}:
        raise OptionError("MODEL", expected=f"a model to test on {data}", got="none (only the digits need none)")
    accepted = None if baseline is None else read_baseline(baseline)  # before any work is done
    with joined_processes() as processes, ExitStack() as held:
        errors = Console(stderr=True, quiet=not processes.leads)
        dataset, network, history = prepare(
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
        )
        folder = make_folder(out)
        if processes.leads:
            held.enter_context(exclusive(folder))
        processes.gather(None)  # nobody writes there before it is ours
        with StageProgress(errors) as progress:
            checkup = run_check(
                network,
                dataset,
                name=model or "speednet trained on digits",
                weights=None if weights is None else weights.name,
                budget=BUDGETS[budget.value],
                limit=limit,
                seed=seed,
                history=history,
                folder=folder,
                resume=resume,
                on_stage=progress.show,
                processes=processes,
            )
        if not processes.leads:
            return
        if apply_fixes:
            from assay.cli.fixing import fix_and_measure_again

            # What is measured is kept, whatever happens to the fixes.
            _write(checkup, folder, formats=(), fail_on=fail_on)
            checkup = fix_and_measure_again(
                network,
                dataset,
                checkup,
                source=fix_data or data or ("digits" if model is None else data_of(model)),
                data_dir=data_dir,
                image_size=image_size,
                budget=BUDGETS[budget.value],
                limit=limit,
                spec=model,
                folder=folder,
                console=errors,
            )
        if accepted is not None:
            checkup = apply_baseline(checkup, accepted, today=datetime.now(UTC).date())
        _write(checkup, folder, formats=formats or (), fail_on=fail_on)
        print_summary(checkup, Console())
        typer.echo(f"Report: {folder / 'report.html'}")
        if any(verdict.fails(_LEVELS[fail_on]) for verdict in checkup.verdicts):
            raise typer.Exit(1)


def _write(checkup: Checkup, folder: Path, *, formats: Sequence[Extra], fail_on: FailOn) -> None:
    from assay.files import write_atomically

    # First what cannot be had again: the pages can be drawn from it at any time.
    write_atomically(folder / "check.json", checkup.model_dump_json(indent=1))
    from assay.report.check_page import render_page
    from assay.report.junit import render_junit
    from assay.report.sarif import render_sarif

    write_atomically(folder / "report.html", render_page(checkup))
    if Extra.JUNIT in formats:
        write_atomically(folder / "check.junit.xml", render_junit(checkup, fail_on=_LEVELS[fail_on]))
    if Extra.SARIF in formats:
        write_atomically(folder / "check.sarif", render_sarif(checkup))
