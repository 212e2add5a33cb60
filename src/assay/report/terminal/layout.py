"""What all printers share: paragraphs, tables, bars and the colours of statuses.

Text from a document is never read as markup: it goes into :class:`rich.text.Text`, which has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.wording import inert

T = TypeVar("T")
WIDEST = 100  # longer lines are hard to follow; rich takes the width of the terminal where that is less
WIDEST_TABLE = 110
STYLES = {
    "error": "bold red",
    "warn": "yellow",
    "pass": "green",
    "cannot tell": "cyan",
    "could not run": "magenta",
    "not run": "dim",
}
BAR = 30  # characters of the longest bar


def print_line(console: Console, text: str | Text, style: str = "", *, wrap: bool = True) -> None:
    """One paragraph, broken at :data:`WIDEST`; not at all without ``wrap``, so that a path can be copied."""
    shown = text if isinstance(text, Text) else Text(inert(text, keep="\n"), style=style)
    console.print(shown, width=WIDEST if wrap else None, highlight=False, soft_wrap=not wrap)


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """What must be known before the numbers are read."""
    for note in notes:
        print_line(console, f"note: {note}", "yellow", wrap=False)


def make_table(*titles: str, header: bool = True) -> Table:
    """Columns by title; ``>`` in front of one aligns it right, and keeps its numbers on one line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=header)
    for title in titles:
        right = title.startswith(">")
        name = title.removeprefix(">")
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def add_row(table: Table, *cells: str | Text, style: str = "") -> None:
    """A row whose texts are shown as they are."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(inert(cell, keep="\n")) for cell in cells), style=style)


def print_table(
    console: Console, titles: Sequence[str], rows: Iterable[Sequence[str | Text]], *, header: bool = True
) -> None:
    """A whole table at once; titles as for :func:`make_table`."""
    table = make_table(*titles, header=header)
    for row in rows:
        add_row(table, *row)
    console.print(table, highlight=False)


def tail(text: str, room: int) -> str:
    """The end of a name tells modules apart, so a name that is too long loses its beginning."""
    return text if len(text) <= room else f"…{text[1 - room :]}"


def print_items(console: Console, items: Iterable[T], columns: Mapping[str, Callable[[T], str | Text]]) -> None:
    """A row for each item; ``columns`` gives each title the function that makes its cell."""
    print_table(console, tuple(columns), ([cell(item) for cell in columns.values()] for item in items))


def print_facts(console: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Names, dimmed, beside their values; pairs without a value are left out."""
    rows = ((Text(name, style="dim", no_wrap=True), value) for name, value in pairs if value)
    print_table(console, ("", ""), rows, header=False)


def bar(share: float, colour: str) -> Text:
    """A bar of that share of :data:`BAR` characters, cut where the terminal has less room."""
    return Text("█" * max(0, round(BAR * share)), style=colour, no_wrap=True, overflow="crop")
