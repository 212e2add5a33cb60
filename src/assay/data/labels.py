"""Labels as they are stored (numbers, text, truth values) to class numbers and class names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import DataError

MOST_CLASSES = 100_000
Values = NDArray[Any]  # one-dimensional: int64, or text as objects


def read_labels(values: Sequence[object] | NDArray[Any], *, where: str) -> Values:
    """One label a sample, as whole numbers (int64) or as text (an object array of ``str``).

    Truth values become ``false`` and ``true``; text in which every entry is a whole number becomes numbers, and so do
    floating numbers without a fraction. Raises :class:`DataError` at the first label that is missing or of no use.
    """
    # A NumPy array of text would cut the zeros off its ends.
    is_text = not isinstance(values, np.ndarray) and any(isinstance(value, str | bytes) for value in values)
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
    return _texts(array, where=where)


def _whole_numbers(array: NDArray[Any], *, where: str) -> Values:
    outside = (array > MOST_CLASSES) | (array < -MOST_CLASSES)
    if outside.any():
        first = int(outside.argmax())
        raise DataError(f"{where}[{first}]", expected=f"a class number below {MOST_CLASSES:,}", got=array[first])
    return array.astype(np.int64)


def _texts(array: NDArray[Any], *, where: str) -> Values:
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in array.tolist()]
    for index, text in enumerate(texts):
        if text is None or text == "":
            raise DataError(f"{where}[{index}]", expected="a label", got="none")
        if not isinstance(text, str):
            got = f"{type(text).__name__} {text!r:.60}"
            raise DataError(f"{where}[{index}]", expected="a class number or a class name", got=got)
    if texts and all(re.fullmatch(r"[+-]?[0-9]{1,18}", text) for text in texts):
        return _whole_numbers(np.array([int(text) for text in texts], np.int64), where=where)
    return np.array(texts, object)


def derive_classes(labels: Values, *, where: str) -> tuple[str, ...]:
    """Class names for labels that came without any: 0..largest for numbers, else the distinct texts in sorted order.

    Raises :class:`DataError` when all labels are one and the same: nothing can be classified then.
    """
    if labels.dtype == object:
        names = tuple(sorted(set(labels.tolist())))
        distinct = len(names)
    else:
        known = labels[labels >= 0]
        names = tuple(str(number) for number in range(int(known.max()) + 1)) if len(known) else ()
        distinct = len(np.unique(known))
    if len(labels) and distinct == 1:
        raise DataError(where, expected="labels of at least two classes", got=f"only {labels[:1].tolist()[0]!r}")
    return names


def number_labels(labels: Values, *, classes: Sequence[str], where: str) -> Tensor:
    """int64 (N,): each label as the index of its class.

    Raises :class:`DataError` naming the first label outside of ``classes``, unlabelled samples (−1) among them.
    """
    if labels.dtype == object:
        index = {name: number for number, name in enumerate(classes)}
        numbers = np.array([index.get(text, -1) for text in labels.tolist()], np.int64)
        wrong = numbers < 0
        if wrong.any():
            first = int(wrong.argmax())
            shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
            raise DataError(f"{where}[{first}]", expected=f"one of {shown}", got=repr(labels[first]))
        return torch.from_numpy(numbers)
    wrong = (labels < 0) | (labels >= len(classes))
    if wrong.any():
        first = int(wrong.argmax())
        unlabelled = " (not labelled: use another split)" if labels[first] == -1 else ""
        raise DataError(f"{where}[{first}]", expected=f"0..{len(classes) - 1}", got=f"{labels[first]}{unlabelled}")
    return torch.from_numpy(labels.copy())
