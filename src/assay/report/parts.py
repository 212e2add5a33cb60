"""What a page is put together from; each part knows the template that shows it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from markupsafe import Markup

from assay.records.accuracy import Proportion
from assay.records.base import Record
from assay.records.finding import Verdict
from assay.wording import picture_url

T = TypeVar("T")
MOST_ROWS = 300
FEW_ROWS = 25  # are read, not searched
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Column:
    """A column of a table, set as a ``number`` (to the right), a ``name`` (fixed-width) or ``text`` (a sentence)."""

    title: str
    style: str = ""


_STYLES = {">": "number", "`": "name", "¶": "text", " ": ""}


@dataclass(frozen=True)
class Table:
    """Rows of text under titled columns; rows beyond the ``most`` are counted, not shown.

    A long table with a ``search`` has a field of that title above it, which leaves the rows that have its text in a
    column of names.
    """

    template: ClassVar[str] = "table.html"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    search: str = ""
    most: int = MOST_ROWS

    @property
    def shown(self) -> tuple[tuple[str, ...], ...]:
        return self.rows[: self.most]

    @property
    def left_out(self) -> int:
        """How many rows only ``check.json`` holds."""
        return max(0, len(self.rows) - self.most)

    @property
    def searched(self) -> bool:
        """Whether it has so many rows that a reader looks for one."""
        return bool(self.search) and len(self.shown) > FEW_ROWS


@dataclass(frozen=True)
class Figure:
    """A chart: ``finding`` says what it shows, ``note`` how to read it, ``table`` the same in numbers.

    ``legend`` names the series in the order of their colours and signs; ``places`` are the numbers of those from 1,
    where they are not 1, 2, 3 ….
    """

    template: ClassVar[str] = "figure.html"
    finding: str
    wide: Markup
    narrow: Markup
    note: str = ""
    table: Table | None = None
    full: bool = False
    legend: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    @property
    def entries(self) -> tuple[tuple[str, int], ...]:
        """The names of the legend with the numbers of their colours."""
        return tuple(zip(self.legend, self.places or range(1, len(self.legend) + 1), strict=False))


@dataclass(frozen=True)
class Facts:
    """Name and value pairs."""

    template: ClassVar[str] = "facts.html"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Prose:
    """A paragraph; `` `code` `` is set as code."""

    template: ClassVar[str] = "prose.html"
    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file in base64 with its size in pixels; small ones are enlarged without smoothing."""

    source: str
    width: int
    height: int
    text: str

    @property
    def url(self) -> str:
        return picture_url(self.source)

    @property
    def pixelated(self) -> bool:
        return self.width <= 128


@dataclass(frozen=True)
class Chance:
    """The class that a model predicted, before the attack or after it, and its probability, in words as well."""

    when: str
    name: str
    told: str
    share: float


@dataclass(frozen=True)
class Card:
    """Pictures side by side, what they show, and facts below; ``id`` is that of the sample."""

    pictures: tuple[tuple[str, Picture | None], ...]
    lines: tuple[str, ...]
    right: bool | None = None
    id: str = ""
    chances: tuple[Chance, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """Cards in a grid, ``large`` ones two a row; ``left_out`` counts those that would make the file too large."""

    template: ClassVar[str] = "gallery.html"
    finding: str
    note: str
    cards: tuple[Card, ...]
    left_out: int = 0
    large: bool = False


@dataclass(frozen=True)
class SampleTile:
    """One sample of a grid: where its picture lies on the sheet, its fate, and the lines below it.

    ``fate`` is ``wrong`` (before the attack), ``broken`` or ``held``; ``taken`` is the class it was wrongly taken for,
    None where it held. ``label`` and ``taken`` are places in the names of the grid.
    """

    x: float
    y: float
    fate: str
    label: int
    taken: int | None
    lines: tuple[str, ...]
    tip: str
    id: str
    chances: tuple[Chance, ...]


@dataclass(frozen=True)
class SampleGrid:
    """Samples with filters: the sheet of their pictures, and how large a tile and the sheet are on the screen.

    ``labels`` and ``takens`` are the choices of the class filters: place, name, and how many of the tiles. More than a
    ``few`` are searched by name.
    """

    template: ClassVar[str] = "samples.html"
    id: str
    finding: str
    note: str
    sheet: Picture | None
    sheet_width: float
    width: float
    height: float
    sharp: bool
    tiles: tuple[SampleTile, ...]
    labels: tuple[tuple[int, str, int], ...]
    takens: tuple[tuple[int, str, int], ...]
    few: ClassVar[int] = FEW_ROWS

    def count(self, *fates: str) -> int:
        """How many tiles have one of these fates."""
        return sum(tile.fate in fates for tile in self.tiles)


@dataclass(frozen=True)
class Bars:
    """Names with lengths relative to the longest, and each length in words."""

    template: ClassVar[str] = "bars.html"
    title: str
    columns: tuple[str, str]
    rows: tuple[tuple[str, float, str], ...]


@dataclass(frozen=True)
class Listing:
    """Short statements under a title, each with the anchor of what it speaks of, or none."""

    template: ClassVar[str] = "listing.html"
    title: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Source:
    """A record as it stands in ``check.json``."""

    template: ClassVar[str] = "source.html"
    title: str
    text: str


@dataclass(frozen=True)
class KeyFigure:
    """One large number at the top of a page.

    ``detail`` stands below it; ``proportion`` draws its interval on a scale from 0 to 1; ``anchor`` is the section it
    comes from; a ``status`` (``pass``, ``warn``, …) gives it a colour.
    """

    name: str
    number: str
    detail: str = ""
    anchor: str = ""
    proportion: Proportion | None = None
    status: str = ""


@dataclass(frozen=True)
class Shot:
    """A picture as a ``data:`` address, with its name and what was done to it."""

    name: str
    detail: str
    url: str


@dataclass(frozen=True)
class ShotGrid:
    """Shots in a grid beside the large ``original``, which shows through where one is pointed at.

    ``shape`` is (height, width) of the original; ``sharp`` pictures are enlarged without smoothing.
    """

    template: ClassVar[str] = "shot_grid.html"
    original: Shot
    shots: tuple[Shot, ...]
    shape: tuple[int, int]
    sharp: bool = False


@dataclass(frozen=True)
class ShotRow:
    """Shots in a row under a name; ``layout`` is ``""``, ``short`` (few of them) or ``large`` (wrapped)."""

    template: ClassVar[str] = "shot_row.html"
    name: str
    detail: str
    shots: tuple[Shot, ...]
    layout: str = ""
    sharp: bool = False


Part = Table | Figure | Facts | Prose | Gallery | SampleGrid | Bars | Listing | Source | ShotGrid | ShotRow


@dataclass(frozen=True)
class Section:
    """One chapter of a page; the kinds of the records it was drawn from become its anchors.

    ``judged`` are the verdicts that rest on these records. A ``folded`` section is opened by its reader, and on paper
    only where it is ``printed``.
    """

    template: ClassVar[str] = "section.html"
    id: str
    title: str
    summary: str
    parts: tuple[Part, ...]
    records: tuple[Record, ...] = ()
    judged: tuple[Verdict, ...] = ()
    folded: bool = False
    printed: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The ``kind`` of each of its records, as ``check.json`` has it, once."""
        return tuple(dict.fromkeys(str(type(record).model_fields["kind"].default) for record in self.records))


def build_section(id: str, title: str, summary: str, *parts: Part | None, records: Iterable[Record] = ()) -> Section:
    """A section of the parts that are there."""
    return Section(id, title, summary, tuple(part for part in parts if part is not None), tuple(records))


def table(
    caption: str,
    titles: Iterable[str],
    rows: Iterable[Sequence[str]],
    *,
    folded: bool = False,
    search: str = "",
    most: int = MOST_ROWS,
) -> Table:
    """A table by the titles of its columns; a first character tells how a column is set.

    ``>`` numbers, to the right; `` ` `` names, in the fixed-width face; ``¶`` sentences; a space nothing, for titles
    that come from a document.
    """
    columns = tuple(Column(title[1:], _STYLES[title[0]]) if title[:1] in _STYLES else Column(title) for title in titles)
    return Table(caption, columns, tuple(tuple(row) for row in rows), folded, search, most)


def tabulate(
    caption: str,
    items: Iterable[T],
    columns: Mapping[str, Callable[[T], str]],
    *,
    folded: bool = False,
    search: str = "",
) -> Table:
    """A row for each item; ``columns`` gives each title, as for :func:`table`, the function that makes its cell."""
    rows = ([cell(item) for cell in columns.values()] for item in items)
    return table(caption, columns, rows, folded=folded, search=search)


def read_picture(encoded: str, *, text: str) -> Picture | None:
    """The picture when ``encoded`` is base64 of a PNG or JPEG file, else None.

    A damaged document must not break the page.
    """
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(content) >= 24 and content.startswith(_PNG):
        return Picture(encoded, int.from_bytes(content[16:20]), int.from_bytes(content[20:24]), text)
    size = _size_of_jpeg(content)
    return None if size is None else Picture(encoded, *size, text)


def _size_of_jpeg(content: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG file, from its frame header; None for anything else (ITU-T T.81, annex B)."""
    place = 2
    while content.startswith(b"\xff\xd8") and place + 9 < len(content) and content[place] == 0xFF:
        if content[place + 1] in {0xC0, 0xC1, 0xC2}:
            return int.from_bytes(content[place + 7 : place + 9]), int.from_bytes(content[place + 5 : place + 7])
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return None


def within(cards: Iterable[Card], *, size: int) -> tuple[Card, ...]:
    """The leading cards whose pictures together take at most ``size`` bytes."""
    leading: list[Card] = []
    for card in cards:
        size -= sum(len(picture.source) for _, picture in card.pictures if picture)
        if size < 0:
            break
        leading.append(card)
    return tuple(leading)
