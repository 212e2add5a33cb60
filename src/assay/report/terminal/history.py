"""A history on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.records.comparison import History, Track
from assay.records.reading import made_inert
from assay.report import history_wording as say
from assay.report.comparison_wording import ARROW
from assay.wording import percent

_WIDEST = 110
_COLUMNS = 3


def print_history(history: History, console: Console) -> None:
    """The finding, a table of each track with what moved beyond noise, and the files that were skipped."""
    history = made_inert(history)
    _line(console, say.headline(history), "bold")
    for track in history.tracks:
        console.print()
        _line(console, f"{track.data}, {track.split}")
        console.print(_table(track), width=_WIDEST, highlight=False)
    console.print()
    _line(console, "▲ better, ▼ worse than the check before it, beyond noise.", "dim")
    _line(console, say.tally(history))
    for reason in history.skipped:
        _line(console, f"skipped: {reason}", "yellow")


def _table(track: Track) -> Table:
    measures = say.common_measures(track)[:_COLUMNS]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("check", no_wrap=True)
    several = len({entry.model for entry in track.entries}) > 1
    if several:
        table.add_column("model", no_wrap=True)
    for measure in measures:
        table.add_column(measure.partition(",")[0], justify="right", no_wrap=True)
    table.add_column("fails", justify="right")
    table.add_column("warns", justify="right")
    for name, entry in zip(say.labels(track), track.entries, strict=True):
        shares = {share.measure: share for share in entry.shares}
        signs = {
            change.measure: ARROW[change.change]
            for change in entry.changes
            if change.change != "no change beyond noise"
        }
        table.add_row(
            name,
            *((Text(entry.model),) if several else ()),
            *(
                f"{percent(shares[measure].accuracy)} {signs.get(measure, ' ')}" if measure in shares else "–"
                for measure in measures
            ),
            str(say.count_status(entry, "error")),
            str(say.count_status(entry, "warn")),
        )
    return table


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), width=_WIDEST, highlight=False)
