"""What ``assay claims`` prints: a table of verdicts, each with the numbers that it rests on."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.records.claims import ClaimsReport
from assay.report.claims_wording import LOOKS, circumstances, headline
from assay.report.terminal.layout import STYLES, WIDEST_TABLE, print_line
from assay.wording import inert

_STATUS = {"supported": "pass", "refuted": "error", "undecided": "warn"}


def print_claims(report: ClaimsReport, console: Console) -> None:
    """The headline and a row a claim; reads as well without colour."""
    print_line(console, circumstances(report), "dim")
    print_line(console, headline(report), "bold")
    console.print()
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in report.results:
        look = LOOKS[result.verdict]
        verdict = Text(f"{look.sign} {look.word.lower()}", style=STYLES[_STATUS[result.verdict]])
        sentence = Text.assemble(result.sentence, "\n", (inert(result.because, keep=""), "dim"))
        table.add_row(verdict, Text(result.id), sentence)
    for failed in report.failed:
        sentence = Text.assemble(failed.sentence, "\n", (inert(failed.error, keep=""), "dim"))
        table.add_row(Text("– failed", style=STYLES["error"]), Text(failed.id), sentence)
    console.print(table, width=WIDEST_TABLE, highlight=False)
