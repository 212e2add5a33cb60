"""``assay claims``: textbook statements, measured here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from assay.records.claims import ClaimResult, ClaimsReport, FailedClaim


class ClaimBudget(StrEnum):
    """How much work the claims may take."""

    QUICK = "quick"
    FULL = "full"


class ClaimData(StrEnum):
    """The images that claims are measured on."""

    DIGITS = "digits"
    CIFAR10 = "cifar10"


def claims(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Claims to measure; all without any.", show_default=False),
    ] = None,
    budget: Annotated[
        ClaimBudget, typer.Option(help="quick: minutes; full: more seeds and images.")
    ] = ClaimBudget.QUICK,
    data: Annotated[ClaimData, typer.Option(help="The images to measure on.")] = ClaimData.DIGITS,
    data_dir: arg.DataDir = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model of yours for the claims about attacks, instead of one trained here.", show_default=False
        ),
    ] = None,
    weights: arg.Weights = None,
    out: Annotated[Path, typer.Option(help="Folder for claims.html and claims.json.")] = Path("assay-claims"),
    resume: Annotated[bool, typer.Option("--resume", help="Take over what an interrupted run finished.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Print the claims and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of the table.")] = False,
    seed: arg.Seed = 0,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Claims measured at a time, one thread each. Left out: one a core.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure what textbooks say about deep networks: supported, refuted or undecided, with effect and interval.

    Exit codes: 0 all were measured, 1 some could not be, 2 usage or input error, 3 interrupted (--resume).
    """
    from rich.console import Console

    from assay.claims import Settings, find_claims, run_claims
    from assay.claims.networks import trained_network
    from assay.cli.progress import StageProgress
    from assay.files import make_folder
    from assay.report.terminal.claims import print_claims

    chosen = find_claims(ids or ())
    if listed:
        _print_list([(claim.id, claim.sentence) for claim in chosen])
        return
    if weights is not None and model is None:
        raise OptionError("--weights", expected="a --model to load them into", got="none")
    settings = Settings(
        budget=budget.value, data=data.value, data_dir=data_dir, seed=seed, model=model, weights=weights
    )
    settings.test()  # data that is not there, or a model that does not fit it, is told before any work is done
    if model is not None:
        trained_network(settings)
    folder = make_folder(out)
    errors = Console(stderr=True, highlight=False)
    with StageProgress(errors) as progress:
        report = run_claims(
            chosen,
            folder=folder,
            settings=settings,
            processes=processes,
            resume=resume,
            on_progress=lambda running, done, total: progress.show(", ".join(running), done, total),
            on_result=lambda result: errors.print(_line(result), markup=False),
        )
    _write(report, folder)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        print_claims(report, Console())
        typer.echo(f"Report: {folder / 'claims.html'}")
    if report.failed:
        raise typer.Exit(1)


def _line(outcome: ClaimResult | FailedClaim) -> str:
    from assay.records.claims import ClaimResult
    from assay.wording import seconds

    if isinstance(outcome, ClaimResult):
        return f"{outcome.verdict:<10} {outcome.id} ({seconds(outcome.seconds)})"
    return f"{'failed':<10} {outcome.id}: {outcome.error}"


def _print_list(rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, sentence in rows:
        table.add_row(name, sentence)
    Console(highlight=False).print(table)


def _write(report: ClaimsReport, folder: Path) -> None:
    from assay.files import write_atomically
    from assay.report.claims_page import render_claims

    # First what cannot be had again: the page can be drawn from it at any time.
    write_atomically(folder / "claims.json", report.model_dump_json(indent=1))
    write_atomically(folder / "claims.html", render_claims(report))
