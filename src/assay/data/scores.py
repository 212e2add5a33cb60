"""What numbers of a classifier are, logits or probabilities, by their name and by their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.wording import plural

Kind = Literal["logits", "probabilities", "log-probabilities"]
TOLERANCE = 0.01  # of the sum of a row: probabilities are written with few digits, or in half precision
ROUNDED = 1e-3  # above this deviation of a sum it is told
ROWS = 1024  # looked at at one time
LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 is taken as this one, of which there is a logarithm

Array = NDArray[Any]


class Scores(NamedTuple):
    """``logits`` (N, K), float32 where that holds the numbers exactly, else float64; what they were, and notes."""

    logits: Array
    kind: Kind
    notes: tuple[str, ...]


def read_scores(values: Array, *, stated: Kind | None, where: str) -> Scores:
    """Logits from ``values`` (N, K), K ≥ 2, which their name ``stated`` to be of a kind, or not.

    Rows that are nowhere negative and sum to 1 are probabilities, and those whose exponentials sum to 1 logarithms of
    probabilities, whatever they are called. Rows with a NaN or an infinity are not looked at. The softmax of the result
    is the probabilities. Raises :class:`DataError` for numbers that are neither, and for those that contradict a name.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(where, expected="numbers", got=f"values of type {values.dtype}")
    if values.ndim != 2 or values.shape[1] < 2:
        raise DataError(where, expected="a number for each of at least two classes", got=f"shape {values.shape}")
    finite = np.asarray(np.isfinite(values).all(axis=1))
    if _all_rows(values, finite, _are_probabilities):
        sums = values[finite].astype(np.float64).sum(axis=1)
        notes = [f"{where}: every row is ≥ 0 and sums to 1: taken as probabilities"] * (stated != "probabilities")
        off = float(np.abs(sums - 1).max())
        if off > ROUNDED:
            notes.append(f"{where}: rows sum to 1 only within {off:.1g}: each is divided by its sum")
        return Scores(np.log(np.maximum(values.astype(np.float64), LEAST)), "probabilities", tuple(notes))
    usable = np.asarray(~(np.isnan(values) | np.isposinf(values)).any(axis=1))
    if _all_rows(values, usable, _are_logarithms):
        notes = [f"{where}: the exponentials of every row sum to 1: logarithms of probabilities"]
        if stated == "logits":
            return Scores(_exact(values), "logits", tuple(notes))
        least = np.maximum(values.astype(np.float64), np.log(LEAST))
        return Scores(np.where(np.isneginf(values), least, _exact(values)), "log-probabilities",
                      tuple(notes * (stated != "log-probabilities")))  # fmt: skip
    if stated in {"probabilities", "log-probabilities"} and finite.any():
        raise _contradiction(values, finite, stated=stated, where=where)
    if stated is None and finite.any():
        _refuse_doubtful(values, finite, where=where)
        return Scores(_exact(values), "logits", (f"{where}: the rows do not sum to 1: taken as logits",))
    return Scores(_exact(values), "logits", ())


def read_single(values: Array, *, stated: Kind | None, where: str) -> Scores:
    """The same for one number (N,) a sample, of two classes: the probability of the second one, or its logit.

    The logits of the result (N, 2) are (ln(1 − p), ln p), or (0, logit).
    """
    finite = values[np.isfinite(values)]
    inside = bool(((finite >= 0) & (finite <= 1)).all())
    if stated == "probabilities" and not inside:
        wrong = finite[(finite < 0) | (finite > 1)][0]
        raise DataError(where, expected="probabilities of the second class, 0..1", got=f"{wrong:.6g}")
    if stated != "logits" and inside:
        second = values.astype(np.float64)
        both = np.column_stack([1 - second, second])
        note = f"{where}: one number in 0..1 a sample: the probability of the second class"
        return Scores(np.log(np.maximum(both, LEAST)), "probabilities", (note,))
    if stated == "log-probabilities":
        raise DataError(where, expected="a number for each class", got="one number a sample")
    exact = _exact(values)
    note = f"{where}: one number a sample: the logit of the second class, with that of the first as 0"
    zeros = np.where(np.isfinite(exact), np.zeros_like(exact), np.nan)
    return Scores(np.column_stack([zeros, exact]), "logits", (note,))


def _all_rows(values: Array, chosen: Array, are: Callable[[Array], bool]) -> bool:
    """Whether all ``chosen`` rows, at least one, are of a kind; most often the first ones tell that they are not."""
    rows = np.flatnonzero(chosen)
    parts = (values[rows[start : start + ROWS]].astype(np.float64) for start in range(0, len(rows), ROWS))
    return len(rows) > 0 and all(map(are, parts))


def _are_probabilities(rows: Array) -> bool:
    return bool(rows.min() >= -1e-6 and np.abs(rows.sum(axis=1) - 1).max() <= TOLERANCE)


def _are_logarithms(rows: Array) -> bool:
    if rows.max() > 1e-3:
        return False
    return bool(np.abs(np.exp(rows).sum(axis=1) - 1).max() <= TOLERANCE)


def _contradiction(values: Array, finite: Array, *, stated: str | None, where: str) -> DataError:
    """What is wrong with numbers that were said to be probabilities."""
    known = values.astype(np.float64)
    if stated == "log-probabilities":
        with np.errstate(over="ignore"):
            known = np.exp(known)
    sums = known.sum(axis=1)
    wrong = finite & ((known < -1e-6).any(axis=1) | (np.abs(sums - 1) > TOLERANCE))
    row = int(wrong.argmax())
    got = f"the sum {sums[row]:.6g}" if known[row].min() >= -1e-6 else f"{known[row].min():.6g}"
    logits = "; call them logits if that is what they are"
    if stated == "log-probabilities":
        return DataError(f"{where}[{row}]", expected="logarithms of numbers that sum to 1", got=got + logits)
    hint = "; percentages have to be divided by 100" if abs(sums[row] - 100) < 1 else logits
    return DataError(f"{where}[{row}]", expected="numbers ≥ 0 that sum to 1", got=got + hint)


def _refuse_doubtful(values: Array, finite: Array, *, where: str) -> None:
    """Numbers without a telling name that can hardly be logits."""
    if not _all_rows(values, finite, lambda rows: bool(rows.min() >= 0)):
        return
    rows = values[finite].astype(np.float64)
    sums = rows.sum(axis=1)
    expected = "logits, or rows of probabilities that sum to 1"
    if np.abs(sums - 100).max() < 100 * TOLERANCE:
        raise DataError(where, expected=expected, got="rows that sum to 100; divide percentages by 100")
    if rows.max() <= 1:
        first = int((np.abs(sums - 1) > TOLERANCE).argmax())
        got = f"numbers in 0..1 that sum to {sums[first]:.4g} in row {first} ({plural(len(rows), 'row')})"
        raise DataError(where, expected=expected, got=f"{got}; call them logits if that is what they are")


def _exact(values: Array) -> Array:
    """float32 where that changes no number, as of half precision and of logits that were written out; else float64."""
    if values.dtype.kind == "f" and values.dtype.itemsize <= 4:
        return values.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
    if np.array_equal(single.astype(np.float64), values.astype(np.float64), equal_nan=True):
        return single
    return values.astype(np.float64)
