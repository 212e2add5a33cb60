"""What a source tells of each sample beside its image and its label: one column of scalars a name."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError

Column = NDArray[Any]  # (N,): int64, float64, bool, or object of str and None
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOATING = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_NOT_A_NUMBER = {"NaN", "nan", "NA", "N/A", "null", "NULL"}
EXACT = 1 << 53  # whole numbers up to here are the same in float64
_SCALARS = (str, Real, np.bool_, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal)


def make_column(values: Sequence[object], *, gaps: bool = False) -> Column | None:
    """One scalar a sample as an array (N,); None for lists, bytes and other values that are no scalars.

    Truth values, whole numbers and numbers keep their kind; missing ones make whole numbers floating, with NaN. All
    else is text, with None where nothing is there. ``gaps`` says that other samples of the set lack a
    value.
    """
    gaps = gaps or any(value is None for value in values)
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool | np.bool_) for value in present) and not gaps:
        return np.array(values, bool)
    numbers = present and all(isinstance(value, Real) and not isinstance(value, bool | np.bool_) for value in present)
    if numbers and all(isinstance(value, Integral) for value in present):
        most = max(abs(int(value)) for value in present)  # type: ignore[call-overload]
        if not gaps and most < 1 << 63:
            return np.array(values, np.int64)
        numbers = most <= EXACT
    if numbers:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    texts = np.empty(len(values), object)
    for place, value in enumerate(values):
        if value is not None and not isinstance(value, _SCALARS):
            return None
        texts[place] = _text(value)
    return texts


def parse_texts(texts: Sequence[str]) -> Column:
    """The text of a column (N,) as what all of it can be read as: truth values, whole numbers, numbers; else text.

    Empty text is a missing value. A number with zeros in front, such as 007, is a name and no number.
    """
    present = [text for text in texts if text]
    if present and all(map(_WHOLE.fullmatch, present)):
        return _as_column([int(text) if text else None for text in texts])
    numbers = [text for text in present if text not in _NOT_A_NUMBER]
    if numbers and all(map(_FLOATING.fullmatch, numbers)):
        return np.array([float(text) if text and text not in _NOT_A_NUMBER else np.nan for text in texts], np.float64)
    if present and {text.lower() for text in present} <= {"true", "false"}:
        return _as_column([text.lower() == "true" if text else None for text in texts])
    return _as_column([text or None for text in texts])


def _as_column(values: Sequence[object]) -> Column:
    column = make_column(values)
    assert column is not None  # these are scalars
    return column


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def check_columns(metadata: Mapping[str, Any], *, n: int) -> None:
    """Raise :class:`DataError` for a column that is not one scalar for each of ``n`` samples."""
    for name, column in metadata.items():
        where = f"metadata[{name!r}]"
        if not isinstance(column, np.ndarray):
            raise DataError(where, expected="a NumPy array", got=type(column).__name__)
        if column.shape != (n,):
            raise DataError(where, expected=f"one value for each of {n} samples", got=f"shape {column.shape}")
        if column.dtype == object:
            wrong = next((value for value in column.tolist() if not (value is None or isinstance(value, str))), None)
            if wrong is not None:
                raise DataError(where, expected="text or None in an array of objects", got=f"{wrong!r:.60}")
        elif column.dtype not in {np.dtype(np.int64), np.dtype(np.float64), np.dtype(bool)}:
            raise DataError(where, expected="int64, float64, bool, or objects that are text", got=column.dtype)


def take(metadata: Mapping[str, Column], places: NDArray[np.int64]) -> dict[str, Column]:
    """The columns at ``places`` int64 (M,)."""
    return {name: column[places] for name, column in metadata.items()}
