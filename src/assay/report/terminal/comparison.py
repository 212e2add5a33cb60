"""A comparison on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.records.comparison import Comparison, Difference, Versus
from assay.records.reading import made_inert
from assay.report import comparison_wording as say
from assay.wording import percent, plural

_STYLES = {"better": "green", "worse": "bold red", "no change beyond noise": "dim"}
_WIDEST = 110


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The finding, a table of the measures of each candidate, and the verdicts that moved."""
    comparison = made_inert(comparison)
    _line(console, say.headline(comparison), "bold")
    for versus in comparison.versus:
        console.print()
        _line(console, f"{versus.candidate} against {comparison.reference.name}")
        for reason in versus.unpaired:
            _line(console, f"not paired: {reason}", "yellow")
        if versus.differences:
            console.print(_measures(versus), width=_WIDEST, highlight=False)
        moved = [each for each in versus.rules if each.change != "same"]
        for each in moved:
            style = {"worse": "bold red", "not judged": "bold red", "better": "green"}.get(each.change, "dim")
            words = f"{say.status_word(each.before)} → {say.status_word(each.after)}"
            _line(console, f"{each.rule} {each.claim}: {words} ({say.rule_says(each)})", style)
        for reason in versus.left_out:
            _line(console, f"not compared: {reason}", "dim")
    console.print()
    _line(
        console,
        f"Better or worse: p below {comparison.level:g} after Holm's correction over "
        f"{plural(comparison.tests, 'test')}. "
        f"Intervals are 95 %.",
        "dim",
    )


def _measures(versus: Versus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("measure", overflow="fold")
    for title in ("before", "after", "points (95 %)", "p, Holm"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("lost, gained", style="dim", justify="right")
    for each in versus.differences:
        style = _STYLES[each.change]
        table.add_row(
            Text(say.ARROW[each.change], style=style),
            Text(say.short_name(each, versus.differences)),
            percent(each.reference),
            percent(each.candidate),
            Text(say.interval_of(each), style=style),
            say.p_value(each.adjusted),
            _pairs(each),
        )
    return table


def _pairs(each: Difference) -> str:
    if not each.paired:
        return "not paired"
    return "" if each.lost is None else f"{each.lost:,}, {each.gained:,}"


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), width=_WIDEST, highlight=False)
