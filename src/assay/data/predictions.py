"""What a classifier said of the samples of a set, without the classifier: read from a file, or taken from arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.arguments import checked
from assay.data.labels import Values, in_order, one_column, read_labels
from assay.data.metadata import Column, make_column
from assay.data.prediction_columns import CLASS_NAMES, find_roles, holds_text, plain
from assay.data.prediction_files import Table, read_table
from assay.data.reading import listing
from assay.data.scores import Kind, Scores, read_scores, read_single
from assay.errors import DataError
from assay.wording import plural

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """The predictions of one classifier for N samples, as :func:`read_predictions` returns them.

    Attributes:
        name: of the file.
        logits: (N, K), float32 or float64; of probabilities their logarithms; None where only classes were predicted.
        kind: what the numbers were; None where there are none.
        predicted: the predicted class of each sample, a number or a name; None where there is no such column.
        labels: the true class of each sample, a number or a name; None where they have to come from a data set.
        classes: the names of the K classes in the order of the logits, None where they have none.
        ids: distinct whole numbers (N,), None where there is no such column.
        filenames: distinct names of the samples, None where there is no such column.
        metadata: further columns (N,), by their names.
        stated: what the file says of itself: data set, split, model.
        notes: what was guessed or left out, one line each.

    Example:
        >>> import assay, numpy, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "predictions.npz"
        >>> numpy.savez(path, logits=numpy.eye(4, 3), labels=[0, 1, 2, 2])
        >>> table = assay.read_predictions(path)
        >>> len(table), table.kind, table.labels.tolist()
        (4, 'logits', [0, 1, 2, 2])
    """

    name: str
    logits: Array | None
    kind: Kind | None
    predicted: Values | None
    labels: Values | None
    classes: tuple[str, ...] | None
    ids: NDArray[np.int64] | None = None
    filenames: tuple[str, ...] | None = None
    metadata: Mapping[str, Column] = field(default_factory=dict)
    stated: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        rows = self.predicted if self.logits is None else self.logits
        assert rows is not None
        return len(rows)


@checked
def read_predictions(path: Path, *, classes: Sequence[str] | None = None) -> PredictionTable:
    """Read the predictions of a classifier of any framework from a table with one row a sample.

    Columns are found by their names: ``logits`` or ``probabilities`` as lists, ``logit_0`` or ``prob_cat`` with one
    column a class, columns called like the classes, one probability of the second of two classes, or only a
    ``prediction``; ``label``, ``target`` or ``y_true``; ``id``; ``filename`` or ``path``. Whether numbers are logits or
    probabilities follows from their values and their name; what does not fit together is refused.

    Args:
        path: a file ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, ``.npz`` or ``.npy``.
        classes: the names of the classes, in the order of the columns; without them those that the file states.
    Returns:
        The table; its ``notes`` say what was guessed or left out.
    Raises:
        DataError: the file cannot be read, or it is no such table; the message says where, what was expected and what
            is there.
    Example:
        >>> import assay, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "predictions.csv"
        >>> written = path.write_text("filename,label,prob_cat,prob_dog\\na.png,cat,0.9,0.1\\nb.png,dog,0.7,0.3\\n")
        >>> table = assay.read_predictions(path)
        >>> table.classes, table.kind, table.filenames
        (('cat', 'dog'), 'probabilities', ('a.png', 'b.png'))
    """
    table = read_table(path, as_text=holds_text)
    return interpret(table, name=path.name, where=str(path), classes=classes)


def interpret(table: Table, *, name: str, where: str, classes: Sequence[str] | None = None) -> PredictionTable:
    """The predictions in columns that have been read. Raises :class:`DataError`."""
    columns, named = dict(table.columns), _class_names(table, where=where)
    for key in [key for key in columns if plain(key) in CLASS_NAMES and named is not None]:
        del columns[key]
    columns = _positional({key: cells for key, cells in columns.items() if cells.ndim in {1, 2}})
    _check_lengths(columns, where=where)
    roles = find_roles(columns, known=classes or named or (), where=where)
    metadata, of_others = _keep_others({key: columns[key] for key in roles.others}, where=where)
    notes = [*table.notes, *roles.notes, *of_others]
    scores: Scores | None = None
    if roles.scores is not None:
        place = f"{where}:{roles.scores_name}" if roles.scores_name else where
        values = roles.scores[:, 0] if roles.scores.ndim == 2 and roles.scores.shape[1] == 1 else roles.scores
        read = read_scores if values.ndim == 2 else read_single
        stated = table.stated.get("scores", roles.kind)
        try:
            scores = read(values, stated=stated, where=place)
            notes += [] if "scores" in table.stated else scores.notes
        except DataError:
            if roles.predicted is None or values.ndim == 2:
                raise
            notes.append(f"{place}: one number a sample, neither a logit nor a probability of the second class: unused")
        if scores is not None and values.ndim == 1 and not _agree(scores, roles.predicted):
            scores = None
            notes.append(f"{place}: does not fit the predictions as a probability of the second class: not used")
    names_of_classes = tuple(classes) if classes else roles.classes or named
    if scores is not None and names_of_classes is not None and len(names_of_classes) != scores.logits.shape[1]:
        got = f"{plural(len(names_of_classes), 'name')} for {scores.logits.shape[1]} columns"
        raise DataError(f"{where}: classes", expected="a name for each column", got=got)
    predicted = _values(roles.predicted, names_of_classes, where=where, missing=True)
    labels = _values(roles.labels, names_of_classes, where=where)
    if labels is not None and _are_signs(labels, predicted, scores) and not _has_gaps(roles.predicted):
        names_of_classes = names_of_classes or ("-1", "1")
        notes.append(f"{where}: the labels are -1 and 1: taken for the classes {' and '.join(names_of_classes)}")
        labels, predicted = (
            (values > 0).astype(np.int64) if values is not None else None for values in (labels, predicted)
        )
    ids, names = _identities(roles.ids, roles.files, where=where)
    return PredictionTable(
        name=name,
        logits=None if scores is None else scores.logits,
        kind=None if scores is None else scores.kind,
        predicted=predicted,
        labels=labels,
        classes=names_of_classes,
        ids=ids,
        filenames=names,
        metadata=metadata,
        stated=table.stated or None,
        notes=tuple(notes),
    )


def _keep_others(columns: Mapping[str, Array], *, where: str) -> tuple[dict[str, Column], list[str]]:
    """The other columns of one value a sample, as metadata; and notes on which they are, and which are not used."""
    made = {name: make_column(cells.tolist()) if cells.ndim == 1 else None for name, cells in columns.items()}
    metadata = {name: column for name, column in made.items() if column is not None}
    unused = [name for name in columns if name not in metadata]
    notes = [f"{where}: {plural(len(metadata), 'column')} kept as metadata: {listing([*metadata])}"] if metadata else []
    return metadata, notes + ([f"{where}: not used: {listing(unused)}"] if unused else [])


def _agree(scores: Scores, predicted: tuple[str, Array] | None) -> bool:
    """Whether the larger of two probabilities is that of the predicted class, as far as there is such a column."""
    if predicted is None:
        return True
    values = predicted[1]
    known = ~_gaps(values)
    names = in_order(map(str, values[known].tolist()))
    if len(names) > 2:
        return False
    second = scores.logits[known, 1] - scores.logits[known, 0]
    says_second = np.array([name in {names[-1], "1"} for name in map(str, values[known].tolist())])
    if len(names) < 2:  # one and the same for all: it may be either
        return bool((second >= 0).all() or (second <= 0).all())
    return bool(((second >= 0) == says_second)[second != 0].all())


def _class_names(table: Table, *, where: str) -> tuple[str, ...] | None:
    """The names of the classes that the file states, as metadata or in an array of text."""
    stated = table.stated.get("classes")
    if isinstance(stated, list) and all(isinstance(name, str) for name in stated):
        return tuple(stated)
    key = next((key for key in table.columns if plain(key) in CLASS_NAMES), None)
    if key is None or table.columns[key].dtype != object or table.columns[key].ndim != 1:
        return None
    names = tuple(map(str, table.columns[key].tolist()))
    # A column of a table has a row a sample: names are distinct.
    return names if len(set(names)) == len(names) and _is_shorter(key, table) else None


def _is_shorter(key: str, table: Table) -> bool:
    return any(cells.ndim == 2 and cells.shape[1] == len(table.columns[key]) for cells in table.columns.values())


def _positional(columns: dict[str, Array]) -> dict[str, Array]:
    """``arr_0`` and ``arr_1`` of an archive without names: the one of K columns are scores, whole numbers labels."""
    if not columns or not all(key.startswith("arr_") for key in columns):
        return columns
    names = {key: "scores" if cells.ndim == 2 else "labels" for key, cells in columns.items()}
    return {names[key]: cells for key, cells in columns.items()} if len(set(names.values())) == len(names) else columns


def _check_lengths(columns: Mapping[str, Array], *, where: str) -> None:
    lengths = {key: len(cells) for key, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{key} of {length:,}" for key, length in lengths.items())
        raise DataError(where, expected="as many rows in each array", got=got[:200])
    if not lengths or 0 in lengths.values():
        raise DataError(where, expected="at least one row", got="none")


def _values(
    column: tuple[str, Array] | None, names: tuple[str, ...] | None, *, where: str, missing: bool = False
) -> Values | None:
    """Class numbers or names; −1 or "" for a prediction that is ``missing``, where that may be."""
    if column is None:
        return None
    name, cells = column
    place = f"{where}:{name}"
    cells = _numbers_in(one_column(cells, where=place)[0], names)
    gaps = _gaps(cells)
    if not missing or not gaps.any():
        return read_labels(cells, where=place, names=names)
    if gaps.all():
        raise DataError(place, expected="the predicted class of some sample", got="none")
    known = read_labels(cells[~gaps], where=place, names=names)
    values: Values = np.full(len(cells), "" if known.dtype == object else -1, known.dtype)
    values[~gaps] = known
    return values


def _are_signs(labels: Values, predicted: Values | None, scores: Scores | None) -> bool:
    """Whether the numbers of two classes are -1 and 1, and not the -1 of samples without a label."""
    numbers = [labels] if predicted is None else [labels, predicted]
    binary = scores is None or scores.logits.shape[1] == 2
    signs = all(values.dtype != object and set(values.tolist()) <= {-1, 1} for values in numbers)
    return binary and signs and len(set(labels.tolist())) == 2


def _has_gaps(column: tuple[str, Array] | None) -> bool:
    return column is not None and bool(_gaps(column[1]).any())


def _numbers_in(cells: Array, names: tuple[str, ...] | None) -> Array:
    """Text such as 1.0 in every row as numbers, unless all are names of classes: a fraction is no label."""
    texts = [text for text in cells.tolist() if text] if cells.dtype == object else []
    floating = [isinstance(text, str) and re.fullmatch(r"[+-]?\d+\.\d*([eE][+-]?\d+)?", text) for text in texts]
    if not texts or not all(floating) or set(texts) <= set(names or ()):
        return cells
    return np.array([float(text) if text else np.nan for text in cells.tolist()])


def _gaps(cells: Array) -> NDArray[np.bool_]:
    if cells.dtype == object:
        return np.array([cell is None or cell == "" for cell in cells.tolist()])
    return np.isnan(cells) if cells.dtype.kind == "f" else np.zeros(len(cells), bool)


def _identities(
    ids: tuple[str, Array] | None, files: tuple[str, Array] | None, *, where: str
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Distinct ids, whole numbers; those that are text are names of the samples, as file names are."""
    numbers, names = None, None
    if ids is not None:
        values = _distinct(ids, where=where)
        integers = [int(text) for text in values if re.fullmatch(r"-?[0-9]{1,18}", text)]
        if len(set(integers)) == len(values):  # 7 and 007 are two names
            numbers = np.array(integers, np.int64)
        else:
            names = values
    if files is not None:
        names = _distinct(files, where=where) if numbers is None or _is_distinct(files[1]) else names
    return numbers, names


def _is_distinct(cells: Array) -> bool:
    texts = list(map(str, cells.tolist()))
    return len(set(texts)) == len(texts) and "None" not in texts


def _distinct(column: tuple[str, Array], *, where: str) -> tuple[str, ...]:
    name, cells = column
    gaps = _gaps(cells)
    if gaps.any():
        raise DataError(f"{where}:{name}[{int(gaps.argmax())}]", expected="the id of a sample", got="none")
    is_whole = cells.dtype.kind == "f" and bool((cells == np.floor(cells)).all())
    texts = tuple(str(int(cell) if is_whole else cell) for cell in cells.tolist())
    seen: dict[str, int] = {}
    for row, text in enumerate(texts):
        if (first := seen.setdefault(text, row)) != row:
            got = f"{text!r:.80} again, as in row {first}"
            raise DataError(f"{where}:{name}[{row}]", expected="a different one in every row", got=got)
    return texts
