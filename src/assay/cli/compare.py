"""``assay compare``: is B better than A, beyond noise?"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import Budget, BudgetName, Inputs, argument, option, takes_inputs
from assay.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from assay.records.checkup import Checkup

# What makes the exit code 1
FailOn = StrEnum("FailOn", "REGRESSION NEVER")


@takes_inputs(
    omit=("model", "weights", "limit"),
    helps={"data": "The images to test models on that have no check.json yet. A run folder brings its own."},
)
def compare(
    inputs: Inputs,
    checks: Annotated[
        list[str],
        argument(
            "Each a check.json, a report folder, a run folder, a model, or a file of predictions, as for "
            "check --predictions; the first is the reference.",
            metavar="A B [C…]",
        ),
    ],
    limit: Annotated[
        int | None, option("Data", "Of checks still to be made: attack the first N samples.", metavar="N", min=1)
    ] = None,
    out: Annotated[Path, option("Output", "Folder for compare.html and compare.json.", metavar="DIR")] = Path(
        "assay-compare"
    ),
    fail_on: Annotated[
        FailOn,
        option(
            "Output",
            "regression: exit with 1 when something got worse beyond noise, or a verdict got worse or "
            "vanished; or never.",
            metavar="LEVEL",
        ),
    ] = FailOn.NEVER,
    budget: Budget = BudgetName.STANDARD,
) -> None:
    """Compare models with the first one: paired tests on the same images, verdicts side by side.

    Accuracies are compared by McNemar's exact test and curves by a bootstrap over samples; Holm's correction covers
    all tests together. Images that differ are not paired; a note names them.

    Exit codes: 0 no regression (or --fail-on never), 1 a regression, 2 usage or input error.
    """
    from rich.console import Console

    from assay.cli.predictions import FILES, FileChecks
    from assay.comparison import compare as compare_checkups
    from assay.files import make_folder, write_atomically
    from assay.report.comparison_page import render_comparison
    from assay.report.terminal.comparison import print_comparison

    if len(checks) < 2:
        raise InputError("compare", expected="two checks or models, or more", got=f"{len(checks)}: {checks[0]}")
    errors = Console(stderr=True)
    folder = make_folder(out)

    def measure(spec: str, place: int) -> Checkup:
        if Path(spec).suffix.lower() in FILES:
            checkup = files.check(Path(spec))
        else:
            checkup = _check(replace(inputs, model=spec), budget, limit, errors)
        write_atomically(make_folder(folder / f"check-{place}") / "check.json", checkup.model_dump_json(indent=1))
        return checkup

    files = FileChecks(inputs, errors)
    checkups = [_open(spec, place, measure) for place, spec in enumerate(checks, start=1)]
    comparison = compare_checkups(checkups, names=[_name(spec) for spec in checks], seed=inputs.seed)
    write_atomically(folder / "compare.json", comparison.model_dump_json(indent=1))
    write_atomically(folder / "compare.html", render_comparison(comparison))
    print_comparison(comparison, Console())
    typer.echo(f"Page: {folder / 'compare.html'}")
    regressions = [sentence for versus in comparison.versus for sentence in versus.regressions]
    if fail_on is FailOn.REGRESSION and regressions:
        for sentence in regressions:
            errors.print(f"regression: {sentence}", style="red", markup=False, highlight=False)
        raise typer.Exit(1)


def _check(inputs: Inputs, budget: BudgetName, limit: int | None, console: Console) -> Checkup:
    """Load and check a model, with the progress on ``console``."""
    from assay.check import BUDGETS, run_check
    from assay.cli.inputs import open_inputs
    from assay.cli.progress import StageProgress

    opened = open_inputs(inputs, console)
    with StageProgress(console) as progress:
        return run_check(
            opened.model,
            opened.dataset,
            name=opened.name,
            budget=BUDGETS[budget.value],
            limit=limit,
            seed=inputs.seed,
            history=opened.history,
            notes=opened.notes,
            on_stage=progress.show,
        )


def _open(spec: str, place: int, measure: Callable[[str, int], Checkup]) -> Checkup:
    """The check that ``spec`` names, or that of the model it names."""
    from assay.records.reading import read_checkup

    path = Path(spec)
    if path.suffix == ".json":
        return read_checkup(path)
    if (path / "check.json").is_file():
        return read_checkup(path / "check.json")
    return measure(spec, place)


def _name(spec: str) -> str:
    """Its name in the comparison: that of the folder or file, for ``check.json`` that of its folder."""
    path = Path(spec)
    if path.name == "check.json":
        return path.resolve().parent.name
    return path.name if path.exists() else spec


def history(
    folder: Annotated[
        Path, argument("A folder of checks: every check.json below it, every *.json in it.", metavar="DIR")
    ],
    out: Annotated[
        Path | None, option("Output", "The page to write. (default: history.html in DIR)", metavar="FILE")
    ] = None,
) -> None:
    """Show a folder of checks as a trend, each tested against the one before it on the same images.

    Checks are ordered by the time recorded in them. Files that cannot be read are named and skipped.
    """
    from rich.console import Console

    from assay.comparison import trace_history
    from assay.files import write_atomically
    from assay.records.reading import read_folder
    from assay.report.history_page import render_history
    from assay.report.terminal.comparison import print_history

    checkups, broken = read_folder(folder)
    trend = trace_history(checkups, folder=folder.resolve().name, skipped=broken)
    target = out or folder / "history.html"
    write_atomically(target, render_history(trend))
    print_history(trend, Console())
    typer.echo(f"Page: {target}")
