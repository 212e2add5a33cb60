"""Labels as they are stored (numbers, text, truth values) to class numbers and class names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data.reading import listing
from assay.errors import DataError

MOST_CLASSES = 100_000
Values = NDArray[Any]  # one-dimensional: int64, or text as objects


def read_labels(values: Sequence[object] | NDArray[Any], *, where: str, names: Sequence[str] | None = None) -> Values:
    """One label a sample, as whole numbers (int64) or as text (an object array of ``str``).

    Truth values become ``false`` and ``true``; text in which every entry is a whole number becomes numbers, unless all
    are ``names`` of classes or one is written with zeros in front (001 is a name), and so do floating numbers without a
    fraction. Raises :class:`DataError` at the first label that is missing or of no use.
    """
    # A NumPy array of text would cut the zeros off its ends.
    is_text = not isinstance(values, np.ndarray) and any(
        isinstance(value, str | bytes | list | dict) for value in values
    )
    array = np.array(values, object) if is_text else np.asarray(values)
    if array.ndim != 1:
        raise DataError(where, expected="one label for each image", got=f"an array of shape {array.shape}")
    if array.dtype.kind == "b":
        return np.where(array, "true", "false").astype(object)
    if array.dtype.kind == "f":
        broken = ~np.isfinite(array) | (array != np.floor(np.nan_to_num(array)))
        if broken.any():
            first = int(broken.argmax())
            raise DataError(f"{where}[{first}]", expected="a class number or a class name", got=array[first])
    if array.dtype.kind in "iuf":
        return _whole_numbers(array, where=where)
    if array.dtype.kind not in "UOS":
        raise DataError(where, expected="class numbers or class names", got=f"values of type {array.dtype}")
    return _texts(array, where=where, names=frozenset(names or ()))


def one_column(labels: NDArray[Any], *, where: str) -> tuple[NDArray[Any], int | None]:
    """Labels (N,) from (N,), (N, 1) or one-hot rows (N, K), and K where they are one-hot."""
    if labels.ndim != 2:
        return labels, None
    if labels.shape[1] == 1:
        return labels[:, 0], None
    if labels.dtype.kind in "biuf" and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
        return labels.argmax(axis=1), labels.shape[1]
    got = f"shape {labels.shape}, more than one label an image"
    raise DataError(where, expected="one label for each image, or one-hot rows", got=got)


def _whole_numbers(array: NDArray[Any], *, where: str) -> Values:
    outside = (array > MOST_CLASSES) | (array < -MOST_CLASSES)
    if outside.any():
        first = int(outside.argmax())
        raise DataError(f"{where}[{first}]", expected=f"a class number below {MOST_CLASSES:,}", got=array[first])
    return array.astype(np.int64)


def _texts(array: NDArray[Any], *, where: str, names: frozenset[str]) -> Values:
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in array.tolist()]
    for index, text in enumerate(texts):
        if text is None or text == "":
            raise DataError(f"{where}[{index}]", expected="a label", got="none")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            got = f"{type(text).__name__} {text!r:.60}"
            raise DataError(f"{where}[{index}]", expected="a class number or a class name", got=got)
    if texts and not names.issuperset(texts) and all(re.fullmatch(r"[+-]?(0|[1-9][0-9]{,17})", text) for text in texts):
        return _whole_numbers(np.array([int(text) for text in texts], np.int64), where=where)
    return np.array(texts, object)


def derive_classes(labels: Values, *, where: str) -> tuple[str, ...]:
    """Class names for labels that came without any: the numbers from 0 (from 1 where there is no 0) to the largest,
    else the distinct texts in sorted order.

    Raises :class:`DataError` when all labels are one and the same: nothing can be classified then.
    """
    if labels.dtype == object:
        names = in_order(labels.tolist())
        distinct = len(names)
    else:
        known = labels[labels >= 0]
        first = int(len(known) > 0 and known.min() == 1)
        names = tuple(str(number) for number in range(first, int(known.max()) + 1)) if len(known) else ()
        distinct = len(np.unique(known))
    if len(labels) and distinct == 1:
        raise DataError(where, expected="labels of at least two classes", got=f"only {labels[:1].tolist()[0]!r}")
    return names


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names sorted, as numbers where each of them is one: 2 before 10."""
    distinct = sorted(set(names))
    return tuple(sorted(distinct, key=int) if all(map(str.isdecimal, distinct)) else distinct)


def number_labels(labels: Values, *, classes: Sequence[str], where: str, first: int | None = None) -> Tensor:
    """int64 (N,): each label as the index of its class; ``first`` is the number of the first class.

    By default that is 1 where no label is 0 and one is the number of classes, or where the classes are called 1, 2, …;
    else 0. Raises :class:`DataError` naming the first label outside of ``classes``, unlabelled samples (−1) among them.
    """
    if labels.dtype == object:
        times = Counter(classes)
        index = {name: number for number, name in enumerate(classes) if times[name] == 1}
        numbers = np.array([index.get(text, -1) for text in labels.tolist()], np.int64)
        wrong = numbers < 0
        if wrong.any():
            place = int(wrong.argmax())
            shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
            got = repr(labels[place]) + (", the name of several" if labels[place] in times else "")
            raise DataError(f"{where}[{place}]", expected=f"one of {shown}", got=got)
        return torch.from_numpy(numbers)
    if first is None:
        first = first_number(labels, classes)
    wrong = (labels < first) | (labels >= first + len(classes))
    if wrong.any():
        place = int(wrong.argmax())
        unlabelled = " (not labelled: use another split)" if labels[place] == -1 else ""
        expected = f"{first}..{first + len(classes) - 1}"
        raise DataError(f"{where}[{place}]", expected=expected, got=f"{labels[place]}{unlabelled}")
    return torch.from_numpy(labels - first)


def first_number(labels: Values, classes: Sequence[str], *, declared: bool = False) -> int:
    """The number of the first class, 0 or 1, as it follows from all labels there are.

    ``declared`` names of classes are those of the labels 0, 1, …, unless that cannot be.
    """
    if labels.dtype == object or not len(labels) or labels.min() != 1:
        return 0
    counted = list(classes) == [str(number) for number in range(1, len(classes) + 1)]
    return int((counted and not declared) or labels.max() == len(classes))


class Labelling(NamedTuple):
    """``numbers`` int64 (N,) of the samples, the names of the classes, and notes on what was guessed of them."""

    numbers: Tensor
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def assign_classes(
    labels: Values, *, names: tuple[str, ...] | None, where: str, others: Sequence[Values] = ()
) -> Labelling:
    """The classes of ``labels``: those of ``names``, else derived from them and ``others``, the set's other splits.

    It is noted where the classes count from 1, and where the labels hold no sample of some class.
    """
    everything = np.concatenate([labels, *(more for more in others if more.dtype == labels.dtype)])
    classes = names or derive_classes(everything, where=where)
    first = first_number(everything, classes, declared=bool(names))
    numbers = number_labels(labels, classes=classes, where=where, first=first)
    notes = [f"{where}: the labels count from 1, so class 1 is the first of {len(classes)}"] if first else []
    return Labelling(numbers, classes, (*notes, *note_absent(numbers.numpy(), classes, where=where)))


def note_absent(numbers: NDArray[Any], classes: Sequence[str], *, where: str) -> list[str]:
    """A note on the classes of which there is no sample, where there are any."""
    present = set(np.unique(numbers).tolist())
    absent = [name for number, name in enumerate(classes) if number not in present]
    if not absent:
        return []
    return [f"{where}: no sample of {len(absent)} of the {len(classes)} classes: {listing(absent)}"]
