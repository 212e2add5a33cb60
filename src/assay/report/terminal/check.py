"""The terminal summary: the headline, what failed and what to do about it, and the six categories."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix
from assay.records.finding import Verdict
from assay.report.comparison_wording import ARROW
from assay.report.summary import LOOKS, headline, in_order, states, subject_line, tally_sentence
from assay.wording import inert, number, percent, seconds


def tell_fixes(checkup: Checkup) -> Iterator[tuple[str, str]]:
    """(style, line) pairs: each fix with what was done, the numbers before and after, and why one was not applied."""
    fixes = list(checkup.each(AppliedFix))
    for fix in fixes:
        if fix.refused:
            yield "yellow", f"{fix.rule} not fixed ({fix.fix}): {fix.refused}"
            continue
        yield "bold", f"{fix.rule} fixed ({fix.fix}): {fix.applied}"
        yield "", f"  before: {fix.measured_before}"
        yield "", f"  after: {fix.measured_after}"
        for effect in fix.effects:
            moved = "" if effect.change == "no change beyond noise" else f" {ARROW[effect.change]}"
            values = f"{percent(effect.reference)} → {percent(effect.candidate)}{moved}"
            yield "", f"  {effect.measure.partition(',')[0]}: {values}"
        for reading in fix.readings:
            say = percent if reading.unit == "share" else number
            yield "", f"  {reading.name}: {say(reading.before)} → {say(reading.after)}"
    weights = next((fix.weights for fix in fixes if fix.weights), "")
    if weights:
        yield "", f"Fixed weights: {weights}, beside the report"


_STYLES = {"error": "bold red", "warn": "bold yellow", "pass": "green", "not run": "dim"}
_WIDEST = 100  # longer lines are hard to follow; rich takes the terminal's width where that is less


def print_summary(checkup: Checkup, console: Console) -> None:
    """Print the checkup: errors and warnings whole, the rest counted. Reads as well without colour."""
    page = _Page(console)
    page.line(Text(inert(subject_line(checkup), keep="")))
    page.line(Text(inert(headline(checkup), keep=""), style="bold"))
    page.blank()
    page.table(_categories(checkup))
    page.blank()
    for verdict in in_order(checkup.verdicts):
        if verdict.status in {"error", "warn"}:
            _print_verdict(verdict, page)
    for style, line in tell_fixes(checkup):
        page.line(Text(inert(line, keep=""), style=style))
    for each in checkup.outdated:
        said = f"{each.entry.rule} is accepted in the baseline, but {each.because}"
        page.line(Text(inert(said, keep=""), style="yellow"))
    page.line(Text(tally_sentence(checkup.verdicts), style="bold"))
    skipped = [f"{stage.name} ({stage.skipped})" for stage in checkup.stages if stage.skipped is not None]
    if skipped:
        page.line(Text(inert(f"Did not run: {', '.join(skipped)}.", keep="")))
    page.line(
        Text(inert(f"Budget {checkup.budget}, seed {checkup.seed}, {seconds(checkup.seconds)}.", keep=""), style="dim")
    )


class _Page:
    """Prints wrapped to one width, and never reads markup into text that came from a document."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: Text) -> None:
        """One paragraph."""
        self._console.print(text, width=_WIDEST, highlight=False)

    def table(self, table: Table) -> None:
        """A table no wider than the page."""
        self._console.print(table, width=_WIDEST, highlight=False)

    def blank(self) -> None:
        """An empty line."""
        self._console.print()


def _categories(checkup: Checkup) -> Table:
    table = Table.grid(padding=(0, 2))
    for state in states(checkup.verdicts):
        look = LOOKS[state.status]
        table.add_row(
            Text(f"{look.sign} {look.word}", style=_STYLES[state.status]),
            Text("–" if state.score is None else str(state.score), justify="right"),
            Text(state.title.lower()),
            Text(state.summary, style="dim"),
        )
    return table


def _print_verdict(verdict: Verdict, page: _Page) -> None:
    look = LOOKS[verdict.status]
    page.line(
        Text.assemble(
            (f"{look.sign} {look.word} ", _STYLES[verdict.status]),
            (f"{inert(verdict.rule, keep='')} ", "bold"),
            inert(verdict.claim, keep=""),
        )
    )
    rows = [
        ("measured", verdict.measured),
        ("asked for", verdict.threshold),
        ("where", verdict.where),
        ("why", verdict.why),
        ("fix", verdict.fix),
    ]
    if verdict.accepted is not None:
        until = "" if verdict.accepted.expires is None else f", until {verdict.accepted.expires}"
        rows = [rows[0], ("accepted", f"{verdict.accepted.reason} ({verdict.accepted.accepted}{until})")]
    if verdict.remedy is not None:
        rows.append(("after fix", f"{verdict.remedy.measured} ({verdict.remedy.applied})"))
    details = Table.grid(padding=(0, 1))
    for name, value in rows:
        if value:
            details.add_row("", Text(name, style="dim"), Text(inert(value, keep=""), overflow="fold"))
    page.table(details)
    page.blank()
