"""Which samples come first: file order, or, where a source is laid out class by class, a spread over the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def choose_samples(labels: NDArray[Any], *, limit: int | None) -> NDArray[np.int64]:
    """The places of the samples to use: all in file order, or the first ``limit``.

    Where the source is laid out class by class its first samples would be of one class only, so the limit then takes
    the beginning of :func:`interleave` instead.
    """
    n = len(labels)
    if limit is None or limit >= n:
        return np.arange(n)
    if is_grouped(labels):
        return interleave(labels)[:limit]
    return np.arange(limit)


def is_grouped(labels: NDArray[Any]) -> bool:
    """Whether every class lies in one unbroken run, and at least one run is longer than a sample."""
    runs = 1 + int(np.count_nonzero(labels[1:] != labels[:-1]))
    distinct = len(np.unique(labels))
    return 1 < runs == distinct < len(labels)


def interleave(labels: NDArray[Any]) -> NDArray[np.int64]:
    """An order in which every beginning holds the classes in about the proportions of the whole.

    The i-th of the n_c samples of class c comes at (i + ½) / n_c; ties keep the order of the classes. With classes of
    equal size that is one of each in turn.
    """
    _, classes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(classes)
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # 2i + 1 over 2n_c, compared as fractions in float64; equal fractions of unequal n_c are equal in float64 too.
    return np.lexsort((classes, (2 * rank + 1) / (2 * sizes[classes])))
