"""Claims in the terminal: a table of verdicts, each with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.records.claims import ClaimResult, ClaimsReport, Outcome
from assay.report.claims_wording import LOOKS, circumstances, headline
from assay.wording import inert

STYLES: dict[Outcome, str] = {"supported": "green", "refuted": "bold red", "undecided": "yellow"}
_WIDEST = 110


def print_claims(report: ClaimsReport, console: Console) -> None:
    """Print the headline and a row a claim; reads as well without colour."""
    console.print(Text(circumstances(report)), style="dim", width=_WIDEST, highlight=False)
    console.print(Text(headline(report), style="bold"), width=_WIDEST, highlight=False)
    console.print()
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in report.results:
        table.add_row(*_row(result))
    for failed in report.failed:
        sentence = Text.assemble(failed.sentence, "\n", (inert(failed.error, keep=""), "dim"))
        table.add_row(Text("– failed", style="bold red"), Text(failed.id), sentence)
    console.print(table, width=_WIDEST, highlight=False)


def _row(result: ClaimResult) -> Sequence[Text]:
    look = LOOKS[result.verdict]
    return (
        Text(f"{look.sign} {look.word.lower()}", style=STYLES[result.verdict]),
        Text(result.id),
        Text.assemble(result.sentence, "\n", (inert(result.because, keep=""), "dim")),
    )
