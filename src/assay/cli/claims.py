"""``assay claims``: textbook statements, measured here."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import TABLE_OPTIONS, AsJson, Inputs, Resume, argument, flag, option, takes_inputs
from assay.cli.within import Within, parse_duration, seconds_around_stages
from assay.errors import COULD_NOT_RUN, OptionError

if TYPE_CHECKING:
    from assay.records.claims import ClaimResult, FailedClaim

# How much work the claims may take
ClaimBudget = StrEnum("ClaimBudget", "QUICK FULL")
# The images that claims are measured on
ClaimData = StrEnum("ClaimData", "DIGITS CIFAR10")


@takes_inputs(
    omit=(
        "model",
        "data",
        "split",
        "limit",
        "normalization",
        "prepare",
        "match_classes",
        "classes",
        "score_over",
        "image_size",
        "max_bad",
        *TABLE_OPTIONS,
        "device",
    )
)
def claims(
    inputs: Inputs,
    ids: Annotated[list[str] | None, argument("Claims to measure; all without any.", metavar="ID")] = None,
    listed: Annotated[bool, flag("Claims", "Print the claims and end.", "--list")] = False,
    model: Annotated[
        str | None,
        option("Model", "A model of yours for the claims about attacks, instead of one trained here.", metavar="MODEL"),
    ] = None,
    data: Annotated[
        ClaimData | None,
        option(
            "Data",
            "The images to measure on: digits or cifar10. (default: the run folder's, or digits)",
            metavar="DATA",
        ),
    ] = None,
    out: Annotated[Path, option("Output", "Folder for claims.html and claims.json.", metavar="DIR")] = Path(
        "assay-claims"
    ),
    as_json: AsJson = False,
    budget: Annotated[
        ClaimBudget, option("Run", "quick: minutes; full: more seeds and images.", metavar="LEVEL")
    ] = ClaimBudget.QUICK,
    within: Within = None,
    resume: Resume = False,
    processes: Annotated[
        int | None,
        option("Run", "Claims measured at a time, one thread each. (default: one a core)", metavar="N", min=1),
    ] = None,
) -> None:
    """Measure what textbooks say about deep networks: supported, refuted or undecided, with effect and interval.

    Exit codes: 0 all were measured, 2 usage or input error, 3 interrupted (--resume), 4 some could not be measured.
    """
    from rich.console import Console
    from rich.table import Table

    from assay.claims import Settings, find_claims, run_claims
    from assay.cli.drawing import drawing
    from assay.cli.inputs import open_inputs, recorded_data, resolve_data
    from assay.cli.progress import StageProgress
    from assay.files import make_folder, write_atomically
    from assay.report.plan_wording import about
    from assay.report.terminal.comparison import print_claims
    from assay.report.terminal.layout import print_line

    chosen = find_claims(ids or ())
    if listed:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for claim in chosen:
            table.add_row(claim.id, claim.sentence)
        Console(highlight=False).print(table)
        return
    time_given = None if within is None else parse_duration(within)
    if inputs.weights is not None and model is None:
        raise OptionError("--weights", expected="a --model to load them into", got="none")
    errors = Console(stderr=True, highlight=False)
    own = model is not None and recorded_data(Path(model)) is not None  # a run folder brings its data
    inputs = replace(inputs, model=model, data=data.value if data else None if own else "digits")
    if model is not None:  # notes, and a model that does not fit the data, come before any work
        inputs = resolve_data(inputs)
        if inputs.data not in set(ClaimData):
            raise OptionError("--data", expected="digits or cifar10", got=repr(inputs.data))
        open_inputs(inputs, errors)
    settings = Settings(
        budget="quick" if budget is ClaimBudget.QUICK else "full",
        data=str(inputs.data),
        data_dir=inputs.data_dir,
        seed=inputs.seed,
        model=model,
        weights=inputs.weights,
        trust_code=inputs.trust_code,
    )
    if model is None:
        settings.test()  # data that is not there is refused before any work
    folder = make_folder(out)
    left = None
    if time_given is not None:
        left = max(1.0, time_given - seconds_around_stages())
        print_line(
            errors, f"within {within}: what is not measured in {about(left)} is left out, with exit code 4", "dim"
        )
    with StageProgress(errors) as progress:
        report = run_claims(
            chosen,
            folder=folder,
            settings=settings,
            processes=processes,
            resume=resume,
            within=left,
            on_progress=lambda running, done, total: progress.show(", ".join(running), done, total),
            on_result=lambda result: errors.print(_line(result), markup=False),
        )
    write_atomically(folder / "claims.json", report.model_dump_json(indent=1))
    with drawing(folder / "claims.json"):
        from assay.report.claims_page import render_claims

        write_atomically(folder / "claims.html", render_claims(report))
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        print_claims(report, Console())
        typer.echo(f"Report: {folder / 'claims.html'}")
    if report.failed:
        raise typer.Exit(COULD_NOT_RUN)


def _line(outcome: ClaimResult | FailedClaim) -> str:
    from assay.records.claims import ClaimResult
    from assay.wording import seconds

    if isinstance(outcome, ClaimResult):
        return f"{outcome.verdict:<10} {outcome.id} ({seconds(outcome.seconds)})"
    return f"{'failed':<10} {outcome.id}: {outcome.error}"
