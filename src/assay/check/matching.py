"""Which row of a table of predictions belongs to which sample of a data set, and which column to which class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import ImageDataset, digest_labels
from assay.data.labels import Values, derive_classes, first_number, in_order, number_labels
from assay.data.predictions import PredictionTable
from assay.errors import DataError
from assay.models.classes import MatchBy, match_classes
from assay.records.samples import SampleSet, write_runs
from assay.wording import plural

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MatchedRows:
    """``rows`` (M,) of the table are the samples at ``places`` (M,) of the data set, by what ``note`` says."""

    rows: Places
    places: Places
    note: str


def match_rows(table: PredictionTable, dataset: ImageDataset) -> MatchedRows:
    """Pair rows and samples by file names, else by ids, else, where there are as many, by their order.

    Every row must be a sample of the set; samples without a row are left out, which the note says. Raises
    :class:`DataError` for a row that is none, and for another number of rows without names and ids.
    """
    n, wrong = len(dataset), None
    if table.filenames is not None and dataset.filenames is not None:
        places, how = _find_files(table.filenames, dataset.filenames)
        if (places >= 0).all():
            return _matched(places, f"by file name{how}", table, dataset)
        wrong = int((places < 0).argmax()), table.filenames
    if table.ids is not None:
        known = {number: place for place, number in enumerate(dataset.ids.tolist())}
        places = np.array([known.get(number, -1) for number in table.ids.tolist()], np.int64)
        if (places >= 0).all():
            return _matched(places, "by id", table, dataset)
        wrong = wrong or (int((places < 0).argmax()), tuple(map(str, table.ids.tolist())))
    if wrong is not None:
        row, names = wrong
        expected = f"a sample of {dataset.name}, such as {dataset.sample_name(0)!r} of the id {int(dataset.ids[0])}"
        raise DataError(f"{table.name}[{row}]", expected=expected, got=repr(names[row])[:120])
    if len(table) != n:
        expected = f"{n:,} rows, one for each sample of {dataset.name}, or a column of ids or file names"
        raise DataError(table.name, expected=expected, got=f"{len(table):,} rows")
    order = np.arange(n)
    why = "" if table.filenames is None else "; the data have no file names"
    return MatchedRows(order, order, f"rows and samples of {dataset.name} are matched by their order, a guess{why}")


def _matched(places: Places, how: str, table: PredictionTable, dataset: ImageDataset) -> MatchedRows:
    places, first, counts = np.unique(places, return_index=True, return_counts=True)  # in the order of the data
    if counts.max() > 1:
        sample = dataset.sample_name(int(places[counts.argmax()]))
        raise DataError(table.name, expected="one row for each sample", got=f"{int(counts.max())} for {sample}")
    note = f"rows and samples of {dataset.name} are matched {how}"
    if len(places) < len(dataset):
        note += f"; {len(dataset) - len(places):,} of its {len(dataset):,} samples have no prediction and are left out"
    return MatchedRows(first, places, note)


def _find_files(names: Sequence[str], known: Sequence[str]) -> tuple[Places, str]:
    """The place of each name among the ``known``, −1 where it is not there; and what to say of how that was done.

    Paths that differ only in the folders before them are the same where just one of each ends alike.
    """
    exact = {name: place for place, name in enumerate(known)}
    if all(name in exact for name in names):
        return np.array([exact[name] for name in names], np.int64), ""
    by_base: dict[str, list[tuple[str, int]]] = {}
    for place, name in enumerate(known):
        path = _parts(name)
        by_base.setdefault(PurePosixPath(path).name, []).append((path, place))
    places = []
    for name in names:
        path = _parts(name)
        ends = [place for other, place in by_base.get(PurePosixPath(path).name, ()) if _ends_alike(path, other)]
        places.append(ends[0] if len(ends) == 1 else -1)
    return np.array(places, np.int64), ", by the ends of the paths"


def _parts(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./").strip("/")


def _ends_alike(one: str, other: str) -> bool:
    return one == other or one.endswith(f"/{other}") or other.endswith(f"/{one}")


def match_columns(
    table: PredictionTable, dataset: ImageDataset, *, by: MatchBy
) -> tuple[tuple[int, ...] | None, list[str]]:
    """For each class of the data that of the table, and notes; None for predicted classes alone that have no others.

    Raises :class:`InputError`.
    """
    classes = dataset.classes
    if table.classes is not None:
        match = match_classes([table.classes], classes, where=table.name, by=by)
        return match.columns, [match.note] if match.note else []
    if table.logits is None:
        return None, []
    n = table.logits.shape[1]
    if n != len(classes):
        expected = f"a column for each of the {len(classes)} classes of {dataset.name}, or names of the columns"
        raise DataError(table.name, expected=expected, got=f"{n} columns without names")
    note = f"the columns of {table.name} have no names: taken for the classes of {dataset.name} in their order, a guess"
    return tuple(range(n)), [note]


def find_classes(table: PredictionTable, labels: Values) -> tuple[tuple[str, ...], list[str]]:
    """The classes of a table without a data set: their names, and notes on what was guessed.

    Raises :class:`DataError` where the labels are more, or others, than the columns.
    """
    if table.classes is not None:
        return table.classes, []
    where = f"{table.name}: labels"
    if table.logits is None:
        assert table.predicted is not None
        if labels.dtype != table.predicted.dtype:
            raise DataError(
                where, expected="labels and predictions both as numbers or both as names", got="one of each"
            )
        known = table.predicted != ("" if labels.dtype == object else -1)
        return derive_classes(np.concatenate([labels, table.predicted[known]]), where=where), []
    k = table.logits.shape[1]
    if labels.dtype != object:
        return tuple(map(str, range(k))), []
    names = in_order(labels.tolist())
    if len(names) != k:
        got = f"{plural(len(names), 'class name')} among the labels"
        raise DataError(where, expected=f"names of the {k} columns (--classes gives them)", got=got)
    note = f"{table.name}: the columns have no names: taken for the texts of the labels in sorted order, a guess"
    return names, [note]


def number_classes(
    values: Values, classes: tuple[str, ...], *, where: str, everything: Sequence[Values] = ()
) -> tuple[Tensor, list[str]]:
    """Numbers or names as int64 (N,) indices into ``classes``; and a note where they count from 1.

    Classes that are called by numbers are meant by their names wherever these are all known. ``everything`` are the
    labels and predictions from which it follows whether classes are counted from 1. Raises :class:`DataError`.
    """
    if values.dtype == object:
        return number_labels(values, classes=classes, where=where), []
    together = np.concatenate([values, *(each for each in everything if each.dtype == values.dtype)])
    together = together[together >= 0]
    counted = list(map(str, range(len(classes))))
    if all(map(str.isdecimal, classes)) and classes != tuple(counted):
        names = {int(name): place for place, name in enumerate(classes)}
        if set(together.tolist()) <= names.keys():
            return torch.tensor([names.get(value, -1) for value in values.tolist()]), []
        if sorted(names) != list(range(1, len(classes) + 1)):
            wrong = next(value for value in together.tolist() if value not in names)
            raise DataError(where, expected=f"one of {', '.join(classes[:5])}, …", got=wrong)
    first = first_number(together, classes, declared=True)
    note = [f"{where}: the labels count from 1, so class 1 is the first of {len(classes)}"] if first else []
    return number_labels(values, classes=classes, where=where, first=first), note


def identify_rows(table: PredictionTable, labels: Tensor) -> tuple[SampleSet, Tensor]:
    """The samples of a table without a data set, and their order in it: by ids, else by names, else by rows.

    The labels are int64 (N,). There is no digest of pixels; that of the labels is over the names where there are no
    ids, so that only tables of the same names are the same samples.
    """
    n = len(table)
    if table.ids is not None:
        ids = torch.from_numpy(table.ids)
        order = ids.argsort()
        return SampleSet(
            n=n, ids=write_runs(ids[order].tolist()), labels=digest_labels(ids[order], labels[order]), pixels=""
        ), order
    order = torch.arange(n)
    digest = digest_labels(order, labels)
    if table.filenames is not None:
        names = table.filenames
        order = torch.tensor(sorted(range(n), key=lambda row: names[row]))
        named = "\n".join(f"{names[row]}\0{int(labels[row])}" for row in order.tolist())
        digest = hashlib.blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return SampleSet(n=n, ids=write_runs(range(n)), labels=digest, pixels=""), order
