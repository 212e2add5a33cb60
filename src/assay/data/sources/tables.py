"""Tables of text (``.csv``, ``.tsv``, ``.jsonl``, also compressed by gzip) to columns of values."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.data.decoding import SUFFIXES
from assay.data.reading import decode_text, listing
from assay.errors import DataError

DELIMITERS = ",;\t|"
LONGEST_CELL = 1 << 20  # characters; a quote that is never closed ends there
_NAMED_DELIMITER = re.compile(r"sep=(.)\n")  # Excel's own first line


@dataclass(frozen=True, eq=False)
class Table:
    """``columns[i]`` holds the values of ``names[i]``, one a row; a table of ``text`` has nothing else in its cells."""

    names: tuple[str, ...]
    columns: tuple[list[Any], ...]
    text: bool

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def column(self, name: str) -> list[Any]:
        """The values of the first column of this name."""
        return self.columns[self.names.index(name)]


def read_table(file: Path) -> Table:
    """The rows of ``file``; a CSV is parted by commas, semicolons, tabs or bars, as its first row is.

    Raises :class:`DataError` for what is no text, for rows that are longer or shorter than the first, and for lines
    of JSON that are no objects.
    """
    content = file.read_bytes()
    if file.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(str(file), expected="a file compressed by gzip", got=error) from None
    text = decode_text(content, where=str(file))
    if "\0" in text[:4096]:
        raise DataError(str(file), expected="text in UTF-8, or a byte-order mark that tells another", got="zero bytes")
    if not text.strip():
        raise DataError(str(file), expected="a row of names and rows of samples", got="an empty file")
    lines = re.search(r"\.(jsonl|ndjson)(\.gz)?$", file.name, re.IGNORECASE)
    return _read_objects(text, where=str(file)) if lines else _read_rows(text, where=str(file))


def _read_rows(text: str, *, where: str) -> Table:
    if named := _NAMED_DELIMITER.match(text):
        text = text[named.end() :]
    delimiter = named[1] if named else _delimiter_of(text)
    before = csv.field_size_limit(LONGEST_CELL)  # a setting of the whole process
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    names: tuple[str, ...] = ()
    rows: list[list[str]] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not names:
                names = tuple(cells)
                _refuse_sample(names, where=where)
            elif len(cells) != len(names):
                expected = f"{len(names)} cells, as in the first row"
                raise DataError(f"{where}:{reader.line_num}", expected=expected, got=f"{len(cells)}: {cells[0]:.60}")
            else:
                rows.append(cells)
    except csv.Error as error:
        raise DataError(f"{where}:{reader.line_num}", expected="a readable row", got=error) from None
    finally:
        csv.field_size_limit(before)
    columns = tuple(map(list, zip(*rows, strict=True))) if rows else tuple([] for _ in names)
    return Table(names, columns, text=True)


def _delimiter_of(text: str) -> str:
    """The sign that parts the first row into the most cells; the comma where none does."""
    first = next(line for line in text.split("\n") if line.strip())
    return max(DELIMITERS, key=lambda sign: len(next(csv.reader([first], delimiter=sign, skipinitialspace=True))))


def _refuse_sample(cells: Sequence[str], *, where: str) -> None:
    """Raise :class:`DataError` where the first row holds a sample and no names."""
    sample = next((cell for cell in cells if cell.lower().endswith(tuple(SUFFIXES))), None)
    if sample is not None:
        expected = "a first row with the names of the columns, such as path,label"
        raise DataError(where, expected=expected, got=f"a sample there: {sample:.80}")


def _read_objects(text: str, *, where: str) -> Table:
    objects: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            value = json.loads(line, object_pairs_hook=lambda pairs: _distinct(pairs, where=place))  # noqa: B023
        except (ValueError, RecursionError) as error:
            raise DataError(place, expected="an object of JSON in each line", got=error) from None
        if not isinstance(value, dict):
            got = "a list" if isinstance(value, list) else f"{value!r:.60}"
            raise DataError(place, expected='an object of JSON in each line, such as {"path": …}', got=got)
        objects.append(value)
    names = tuple(dict.fromkeys(name for each in objects for name in each))
    return Table(names, tuple([each.get(name) for each in objects] for name in names), text=False)


def _distinct(pairs: list[tuple[str, Any]], *, where: str) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = [name for name in values if names.count(name) > 1]
        raise DataError(where, expected="every name once", got=f"twice {listing(repeated)}")
    return values
