"""``assay compare``: is B better than A, beyond noise?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.cli.inputs import BudgetName
from assay.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from assay.records.checkup import Checkup


class FailOn(StrEnum):
    """What makes the exit code 1."""

    REGRESSION = "regression"
    NEVER = "never"


def compare(
    checks: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C…]",
            help="Each a check.json, a report folder, a run folder, or a model; the first is the reference.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="The images to test models on that have no check.json yet.", show_default=False),
    ] = None,
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    out: Annotated[Path, typer.Option(help="Folder for compare.html and compare.json.")] = Path("assay-compare"),
    fail_on: Annotated[
        FailOn,
        typer.Option(help="Exit with 1 when something got worse beyond noise, or a verdict got worse or vanished."),
    ] = FailOn.NEVER,
    budget: Annotated[BudgetName, typer.Option(help="Of checks that are still to be made.")] = BudgetName.STANDARD,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Of checks still to be made: attack the first N.", show_default=False)
    ] = None,
    normalization: arg.Normalization = None,
    image_size: arg.ImageSize = None,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
) -> None:
    """Hold models against the first one: paired tests on the same images, verdicts side by side.

    Accuracies are compared by McNemar's exact test and curves by a bootstrap over samples; Holm's correction covers
    all tests together. Images that differ are not paired, and that is said.

    Exit codes: 0 no regression (or --fail-on never), 1 a regression, 2 usage or input error.
    """
    from rich.console import Console

    from assay.comparison import compare as compare_checkups
    from assay.files import make_folder, write_atomically
    from assay.report.comparison_page import render_comparison
    from assay.report.terminal.comparison import print_comparison

    if len(checks) < 2:
        raise InputError("compare", expected="two checks or models, or more", got=f"{len(checks)}: {checks[0]}")
    errors = Console(stderr=True)
    folder = make_folder(out)

    def measure(spec: str, place: int) -> Checkup:
        from assay.cli.inputs import check_model

        checkup = check_model(
            spec,
            data=data,
            data_dir=data_dir,
            split=split,
            budget=budget.value,
            limit=limit,
            normalization=normalization,
            image_size=image_size,
            seed=seed,
            device=device,
            console=errors,
        )
        write_atomically(make_folder(folder / f"check-{place}") / "check.json", checkup.model_dump_json(indent=1))
        return checkup

    checkups = [_open(spec, place, measure) for place, spec in enumerate(checks, start=1)]
    comparison = compare_checkups(checkups, names=[_name(spec) for spec in checks], seed=seed)
    write_atomically(folder / "compare.json", comparison.model_dump_json(indent=1))
    write_atomically(folder / "compare.html", render_comparison(comparison))
    print_comparison(comparison, Console())
    typer.echo(f"Page: {folder / 'compare.html'}")
    regressions = [sentence for versus in comparison.versus for sentence in versus.regressions]
    if fail_on is FailOn.REGRESSION and regressions:
        for sentence in regressions:
            errors.print(f"regression: {sentence}", style="red", markup=False, highlight=False)
        raise typer.Exit(1)


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
    """How the comparison calls it: a folder or file by its name, ``check.json`` by its folder's."""
    path = Path(spec)
    if path.name == "check.json":
        return path.resolve().parent.name
    return path.name if path.exists() else spec


def history(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Holds checks: every check.json below it, every *.json in it.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; by default history.html in DIR.", show_default=False)
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
    found = trace_history(checkups, folder=folder.resolve().name, skipped=broken)
    target = out or folder / "history.html"
    write_atomically(target, render_history(found))
    print_history(found, Console())
    typer.echo(f"Page: {target}")
