"""The columns of a table: which holds the pictures, which the labels and which the split, by their usual names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.data.reading import SPLIT_WORDS, Reading, choose_split, listing
from assay.errors import DataError
from assay.wording import plural

IMAGE_NAMES = ("img", "image", "images", "picture", "photo", "pixels", "pixel_values", "x", "jpg", "png", "bytes")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "targets", "class", "class_id", "category", "cls", "y")
SPLIT_NAMES = ("split", "subset", "partition", "set", "data_set", "dataset", "phase", "usage")
_OF_PATHS = "path file_name filename filepath file_path file image_path img_path image_file image_filename image_name"
PATH_NAMES = (*_OF_PATHS.split(), *IMAGE_NAMES)
MORE_LABEL_NAMES = (*LABEL_NAMES, "class_name", "label_name", "classname", "species", "diagnosis")


def plain(name: str) -> str:
    """A name without case, spaces and hyphens: ``Image Path`` is ``image_path``."""
    return "_".join(name.strip().lower().replace("-", " ").split())


def pick(candidates: Sequence[str], usual: Sequence[str], *, only_by_name: bool = False) -> str | None:
    """The candidate of the most usual name; failing that the only one, unless ``only_by_name``."""
    by_name = {plain(name): name for name in reversed(candidates)}
    only = candidates[0] if len(candidates) == 1 and not only_by_name else None
    return next((by_name[name] for name in usual if name in by_name), only)


def find_named(columns: Sequence[str], name: str, *, option: str, where: str, what: str = "column") -> str:
    """The column that an option names, whatever its case. Raises :class:`DataError` where there is none."""
    if name in columns:
        return name
    alike = [column for column in columns if plain(column) == plain(name)]
    if len(alike) != 1:
        raise DataError(where, expected=f"the {what} {name!r} of {option}", got=f"{what}s {listing(columns, most=12)}")
    return alike[0]


def refuse_repeated(columns: Sequence[str], used: Sequence[str], *, where: str) -> None:
    """Raise :class:`DataError` where a column that is used is there twice."""
    times = Counter(columns)
    for name in used:
        if times[name] > 1:
            raise DataError(where, expected="columns of different names", got=f"{times[name]} called {name!r}")


def label_note(label: str, other: str | None, *, where: str) -> list[str]:
    """What is told where the column ``other`` could hold the labels as well."""
    return [f"{where}: the labels are those of the column {label!r}, not of {other!r}"] if other else []


def kept_notes(kept: Sequence[str], unused: Sequence[str], *, where: str) -> list[str]:
    """What is told of the other columns: which stay with the samples, and which do not."""
    notes = [f"{where}: {plural(len(kept), 'column')} kept as metadata: {listing(kept, most=8)}"] if kept else []
    return notes + ([f"{where}: {plural(len(unused), 'column')} not used: {listing(unused)}"] if unused else [])


class Part(NamedTuple):
    """The name of a split, its ``rows`` int64 (M,), whether a column of splits ``parts`` the table, and notes."""

    split: str
    rows: NDArray[np.int64]
    parts: bool
    notes: list[str]


def rows_of_split(
    cells: Sequence[object] | None, count: int, *, column: str, split: str, reading: Reading, where: str, name: str
) -> Part:
    """The rows of the wanted split among ``count``, by the cells of the column of splits; all rows without one.

    ``split`` is that in the name of the file, which is taken where the column has it too. Rows of no known split are
    left out, and a column in which no cell names a split parts nothing, both of which is noted; where such a column was
    named by an option, :class:`DataError` is raised.
    """
    if cells is None:
        return Part(split, np.arange(count), False, [])
    parts: dict[str, list[int]] = {}
    unknown: dict[str, int] = {}
    for row, cell in enumerate(cells):
        word = "" if cell is None else str(cell).strip()
        if known := SPLIT_WORDS.get(word.lower()):
            parts.setdefault(known, []).append(row)
        else:
            unknown[word or "nothing"] = unknown.get(word or "nothing", 0) + 1
    if not parts:
        values = listing(list(unknown), most=5)
        if reading.split_column is not None:
            expected = f"names of splits ({', '.join(list(SPLIT_WORDS)[:6])}, …)"
            raise DataError(f"{where}:{column}", expected=expected, got=values)
        note = f"{name}: the column {column!r} names no split ({values}): every row is used"
        return Part(split, np.arange(count), False, [note])
    wanted = split if split in parts else reading.split
    part, rows = choose_split(parts, wanted=wanted, where=f"{where}:{column}")
    left = sum(unknown.values())
    notes = [f"{name}: {plural(left, 'row')} of no known split left out ({listing(list(unknown))})"] if left else []
    return Part(part, np.array(rows), True, notes)
