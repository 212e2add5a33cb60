"""Manifests: tables (``.csv``, ``.tsv``, ``.jsonl``) with a column of paths to pictures and a column of labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.data.dataset import ImageDataset
from assay.data.decoding import SUFFIXES
from assay.data.labels import assign_classes, read_labels
from assay.data.metadata import Column, make_column, parse_texts, take
from assay.data.pictures import decode_pictures
from assay.data.reading import Reading, is_hidden, listing, split_of
from assay.data.selection import choose_samples
from assay.data.sources import MANIFEST
from assay.data.sources.columns import (
    MORE_LABEL_NAMES,
    PATH_NAMES,
    SPLIT_NAMES,
    find_named,
    kept_notes,
    label_note,
    pick,
    refuse_repeated,
    rows_of_split,
)
from assay.data.sources.picture_paths import PictureFolder
from assay.data.sources.tables import Table, read_table
from assay.errors import DataError
from assay.wording import plural

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
LOOKED_AT = 100  # rows in which endings of picture files are looked for


@dataclass(frozen=True)
class Roles:
    """The names of the columns of the paths, the labels and, where there is one, the splits."""

    path: str
    label: str
    split: str | None = None

    @property
    def used(self) -> tuple[str, ...]:
        return (self.path, self.label) if self.split is None else (self.path, self.label, self.split)


def load_manifest(
    files: Sequence[Path], *, name: str, split: str, reading: Reading, others: Sequence[Path] = ()
) -> ImageDataset:
    """Read the pictures that the rows of ``files`` name; paths start from the table's folder or ``reading.root``.

    The columns are those that ``reading`` names, else those of the usual names (:mod:`assay.data.sources.columns`);
    failing that the paths are the only column that ends as names of pictures do, and the labels the only other one. A
    column of splits parts the rows; all of them together, and those of ``others``, number the classes. Every other
    column is metadata. An id is the row's number, from 0, over all files.

    Raises :class:`DataError` for columns that are not there, for labels that are no classes, for paths that lead out
    of the folder, and where more than ``reading.max_bad`` pictures are not there.
    """
    tables = [read_table(file) for file in files]
    roles = [find_roles(table, reading=reading, where=str(file)) for table, file in zip(tables, files, strict=True)]
    if len(set(roles)) > 1 or len({frozenset(table.names) for table in tables}) > 1:
        raise DataError(str(files[-1]), expected=f"the columns of {files[0].name}", got=listing(tables[-1].names))
    role, first = roles[0], tables[0]
    joined = _joined(tables)
    where = f"{files[0]}:{{}}" if len(files) == 1 else f"{name} ({split}):{{}}"
    if not len(joined):
        raise DataError(where.format(role.path), expected="at least one sample", got="no row below the names")
    rest = [each for each in first.names if each and each not in role.used]
    notes = label_note(role.label, pick(rest, MORE_LABEL_NAMES, only_by_name=True), where=name)
    part = rows_of_split(
        joined.column(role.split) if role.split else None,
        len(joined),
        column=role.split or "",
        split=split,
        reading=reading,
        where=str(files[0]),
        name=name,
    )
    rows = part.rows
    role = role if part.parts else Roles(role.path, role.label)
    labels, classes, of_labels = _labels(joined, rows, role, others=others, where=where.format(role.label))
    chosen = limited = choose_samples(labels, limit=reading.limit)
    if reading.divide is not None:
        chosen = chosen[reading.divide(rows[chosen], labels[chosen], scattered=True)]
    if reading.only is not None:
        chosen = chosen[np.isin(rows[chosen], list(reading.only))]
    locate = partial(_located, tables, files, rows, role=role, reading=reading)
    paths, pictures = locate(chosen)
    decoded = decode_pictures(
        pictures, count=len(chosen), reading=reading, where=name, everything=lambda: locate(limited)[1]
    )
    places = chosen[decoded.indices.numpy()]
    metadata, of_metadata = _metadata(joined, role, where=name)
    return ImageDataset(
        decoded.images,
        torch.from_numpy(labels[places]),
        classes,
        name,
        part.split,
        torch.from_numpy(rows[places]),
        tuple(paths[place] for place in decoded.indices.tolist()),
        decoded.skipped,
        (*notes, *part.notes, *of_labels, *_repeated(joined, rows, labels, role, where=name), *of_metadata,
         *decoded.notes),
        metadata=take(metadata, rows[places]),
    )  # fmt: skip


def find_tables(folder: Path) -> list[Path]:
    """The tables of text in a folder, and in the folders of splits in it."""
    places = [folder, *(inner for inner in sorted(folder.iterdir()) if inner.is_dir() and split_of(inner.name))]
    return [
        file
        for place in places
        for file in sorted(place.iterdir())
        if MANIFEST.matches(file.name) and not is_hidden(file.name) and file.is_file()
    ]


def names_pictures(file: Path, *, reading: Reading) -> bool:
    """Whether a table has columns of paths and of labels."""
    try:
        find_roles(read_table(file), reading=reading, where=str(file))
    except DataError:
        return False
    return True


def find_roles(table: Table, *, reading: Reading, where: str) -> Roles:
    """Which columns hold paths, labels and splits. Raises :class:`DataError` listing the columns there are."""
    names = table.names
    got = f"columns {listing(names, most=12)}"
    named = {
        option: find_named(names, wanted, option=f"--{option.replace('_', '-')}", where=where)
        for option in ("image_column", "label_column", "split_column")
        if (wanted := getattr(reading, option)) is not None
    }
    free = [name for name in names if name and name not in named.values()]
    path = named.get("image_column") or pick(free, PATH_NAMES, only_by_name=True) or _ending_as_pictures(table, free)
    if path is None:
        expected = f"a column of paths ({', '.join(PATH_NAMES[:4])}, …; --image-column names another)"
        raise DataError(where, expected=expected, got=got)
    free = [name for name in free if name != path]
    split = named.get("split_column") or pick(free, SPLIT_NAMES, only_by_name=True)
    rest = [name for name in free if name != split]
    label = named.get("label_column") or pick(rest, MORE_LABEL_NAMES)
    if label is None:
        expected = f"a column of labels ({', '.join(MORE_LABEL_NAMES[:3])}, …; --label-column names another)"
        raise DataError(where, expected=expected, got=got)
    roles = Roles(path, label, split)
    if len(set(roles.used)) < len(roles.used):
        raise DataError(where, expected="a column each for paths, labels and splits", got=listing(roles.used))
    refuse_repeated(names, roles.used, where=where)
    return roles


def _ending_as_pictures(table: Table, names: Sequence[str]) -> str | None:
    """The only column of which every cell ends as the name of a picture does."""
    endings = tuple(SUFFIXES)
    fitting = [
        name
        for name in names
        if len(table) and all(str(cell).lower().endswith(endings) for cell in table.column(name)[:LOOKED_AT])
    ]
    return fitting[0] if len(fitting) == 1 else None


def _joined(tables: Sequence[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    columns = tuple([cell for table in tables for cell in table.column(name)] for name in first.names)
    return Table(first.names, columns, first.text)


def _labels(
    table: Table,
    rows: NDArray[np.int64],
    role: Roles,
    *,
    others: Sequence[Path],
    where: str,
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """The labels of ``rows``, numbered among those of all rows of all files; rows of other splits may have none."""
    cells = table.column(role.label)
    filled = np.array([cell is not None and cell != "" for cell in cells])
    of_rows = np.zeros(len(cells), bool)
    of_rows[rows] = True
    spare = cells[int(filled.argmax())]  # in place of labels that other splits lack, so that indices are rows
    values = [cell if mine or full else spare for cell, mine, full in zip(cells, of_rows, filled, strict=True)]
    stored = read_labels(_numbers(values), where=where)
    more = [stored[filled & ~of_rows]]
    for file in others:
        other = read_table(file)
        cells = other.column(role.label) if role.label in other.names else []
        labels = [cell for cell in cells if cell is not None and cell != ""]
        more += [read_labels(_numbers(labels), where=f"{file}:{role.label}")] if labels else []
    numbers, classes, notes = assign_classes(stored[of_rows], names=None, where=where, others=more)
    return numbers.numpy(), classes, notes


def _numbers(cells: list[Any]) -> list[Any]:
    """Text of which every cell is a number, and one has a fraction, as numbers: 1.0 is class 1, and 0.5 is none."""
    texts = all(isinstance(cell, str) for cell in cells)
    if texts and all(map(_NUMBER.fullmatch, cells)) and not all(cell.lstrip("+-").isdecimal() for cell in cells):
        return [float(cell) for cell in cells]
    return cells


def _located(
    tables: Sequence[Table],
    files: Sequence[Path],
    rows: NDArray[np.int64],
    chosen: NDArray[np.int64],
    role: Roles,
    *,
    reading: Reading,
) -> tuple[list[str], Any]:
    """The paths of the chosen rows, and their pictures; the paths of all rows are checked to stay inside."""
    located: list[str] = []
    folders: list[PictureFolder] = []
    starts = np.cumsum([0, *map(len, tables)])
    of_split = set(rows.tolist())
    for table, file, start in zip(tables, files, starts.tolist(), strict=False):
        folder = PictureFolder(reading.root or file.parent, where=f"{file}:{role.path}")
        folders.append(folder)
        for row, cell in enumerate(table.column(role.path)):
            located.append(folder.locate(cell, row) if start + row in of_split else "")
    wanted = rows[chosen]
    of_file = (np.searchsorted(starts, wanted, side="right") - 1).tolist()
    paths = [located[row] for row in wanted.tolist()]
    for number, folder in enumerate(folders):
        mine = [path for path, of in zip(paths, of_file, strict=True) if of == number]
        folder.refuse_missing(mine, max_bad=reading.max_bad)
    pictures = (
        folders[of].encoded(path, row - int(starts[of]))
        for path, row, of in zip(paths, wanted.tolist(), of_file, strict=True)
    )
    return paths, pictures


def _repeated(
    table: Table, rows: NDArray[np.int64], labels: NDArray[np.int64], role: Roles, *, where: str
) -> list[str]:
    """A note on pictures that several rows of the split name, as where a picture has several labels."""
    cells = table.column(role.path)
    labels_of: dict[str, set[int]] = {}
    repeated: dict[str, None] = {}
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        if cells[row] in labels_of:
            repeated[cells[row]] = None
        labels_of.setdefault(cells[row], set()).add(label)
    if not repeated:
        return []
    torn = sum(len(labels_of[path]) > 1 for path in repeated)
    differ = f", {torn:,} of them under different labels" if torn else ""
    return [f"{where}: {plural(len(repeated), 'picture')} in several rows{differ} ({listing(list(repeated))})"]


def _metadata(table: Table, role: Roles, *, where: str) -> tuple[Mapping[str, Column], list[str]]:
    """All other columns, and notes on those that are kept and those that are not."""
    columns: dict[str, Column] = {}
    dropped: list[str] = []
    for place, name in enumerate(table.names):
        if name in role.used:
            continue
        values = table.columns[place]
        column = parse_texts(values) if table.text else make_column(values)
        if not name or column is None or table.names.count(name) > 1:
            dropped.append(name or f"column {place + 1}, without a name")
        else:
            columns[name] = column
    return columns, kept_notes(list(columns), list(dict.fromkeys(dropped)), where=where)
