"""Fair samples: the first of a mixed set; of a set ordered by class, some of every class."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.errors import DataError, OptionError
from assay.records.preparation import Preparation
from assay.runtime import generator


def fair_sample(dataset: ImageDataset, n: int) -> ImageDataset:
    """At most ``n`` samples, chosen as by :func:`choose_samples`; the data set itself where it has no more."""
    if n >= len(dataset):
        return dataset
    return dataset.subset(torch.from_numpy(choose_samples(dataset.labels.numpy(), limit=n)))


def sample_of_whole(dataset: ImageDataset, n: int | None = None) -> ImageDataset:
    """:func:`fair_sample` of the set that ``dataset`` is a shard of, read from its source; None: the whole set."""
    part, again = dataset.part, dataset.read_again
    if part is None or part.count == 1 or again is None:
        return dataset if n is None else fair_sample(dataset, n)
    ids = torch.from_numpy(part.ids[choose_samples(part.labels, limit=n)])
    return again(dataset.preparation or Preparation(), ids)


def random_sample(dataset: ImageDataset, n: int, *, key: tuple[int, ...]) -> ImageDataset:
    """At most ``n`` samples in random order, drawn by the numbers of ``key`` (seed, stream, …)."""
    return dataset.subset(torch.randperm(len(dataset), generator=generator(*key))[:n])


def evenly_spaced(dataset: ImageDataset, n: int) -> ImageDataset:
    """At most ``n`` samples at equal distances over the set, first and last among them; in their order.

    Where the classes come round in step with that distance, a fair sample is taken instead, in the order of the set.
    """
    if n >= len(dataset):
        return dataset
    _check_count(n)
    chosen = torch.linspace(0, len(dataset) - 1, n, dtype=torch.float64).round().long()
    if is_skewed(dataset.labels.numpy(), chosen=chosen.numpy()):
        chosen = torch.from_numpy(np.sort(interleave(dataset.labels.numpy())[:n]))
    return dataset.subset(chosen)


def choose_samples(
    labels: NDArray[Any],
    *,
    limit: int | None,
    only: Collection[int] | None = None,
    divide: Callable[[NDArray[np.int64], NDArray[Any]], NDArray[np.int64]] | None = None,
) -> NDArray[np.int64]:
    """The indices of the samples to use, int64: all in file order, or the first ``limit``.

    Where the order of the source depends on the class, or the class proportions of its first ``limit`` samples are not
    those of all, the first ``limit`` of :func:`interleave` are taken instead. ``divide`` takes one shard of these, and
    ``only`` leaves out all others.
    Raises :class:`OptionError` for a limit below 1.
    """
    if only is not None or divide is not None:
        chosen = choose_samples(labels, limit=limit)
        chosen = chosen if divide is None else chosen[divide(chosen, labels[chosen])]
        return chosen if only is None else chosen[np.isin(chosen, list(only))]
    n = len(labels)
    if limit is None or limit >= n:
        return np.arange(n)
    _check_count(limit)
    ordered = is_grouped(labels) or is_ordered(labels) or is_skewed(labels, limit)
    return interleave(labels)[:limit] if ordered else np.arange(limit)


def _check_count(n: int) -> None:
    if n < 1:
        raise OptionError("samples", expected="at least 1", got=n)


SIGNIFICANT = 5  # standard deviations: one mixed set in a million is taken for an ordered one


def is_skewed(labels: NDArray[Any], n: int | None = None, *, chosen: NDArray[np.int64] | None = None) -> bool:
    """Whether the count of some class in the first n, or in ``chosen``, is not what its share lets expect."""
    _, classes = np.unique(labels, return_inverse=True)
    sizes = np.bincount(classes)
    share = sizes / len(labels)
    drawn = classes[:n] if chosen is None else classes[chosen]
    counts = np.bincount(drawn, minlength=len(sizes))
    deviation = np.abs(counts - len(drawn) * share) / np.maximum(np.sqrt(len(drawn) * share * (1 - share)), 0.5)
    return bool((deviation > SIGNIFICANT).any())


def is_ordered(labels: NDArray[Any]) -> bool:
    """Whether more neighbours are of one class than in a mixed set, as in one that was sorted and changed a little.

    In a random order the pairs of equal neighbours have the mean n·Σp² and the variance n·(Σp² + (Σp²)² − 2Σp³) nearly,
    p the shares of the classes; with two classes that is the test of Wald and Wolfowitz (1940) on runs.
    """
    n = len(labels)
    shares = np.unique(labels, return_counts=True)[1] / n
    square, cube = float((shares**2).sum()), float((shares**3).sum())
    equal = int(np.count_nonzero(labels[1:] == labels[:-1]))
    return equal - n * square > SIGNIFICANT * math.sqrt(max(n * (square + square**2 - 2 * cube), 1))


def is_grouped(labels: NDArray[Any]) -> bool:
    """Whether every class lies in one unbroken run, and at least one run is longer than a sample."""
    runs = 1 + int(np.count_nonzero(labels[1:] != labels[:-1]))
    distinct = len(np.unique(labels))
    return 1 < runs == distinct < len(labels)


def interleave(labels: NDArray[Any]) -> NDArray[np.int64]:
    """An order of which every prefix has about the class proportions of the whole set.

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


STREAM = 0x5B117  # separates these draws from every other use of the same seed


@checked
def stratified_split(dataset: ImageDataset, *, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """``dataset`` as (rest, held out): ``fraction`` of every class, drawn by ``seed``, is held out.

    The held-out part has round(fraction · N) samples; each class gives fraction · n_c of them, rounded so that the sum
    fits (largest remainders first). Both parts have the ids and the order of ``dataset``; the held-out part of a
    ``train`` split is called ``validation``. Which samples are drawn depends on ids and seed only, not on their order.

    Raises :class:`OptionError` for a fraction outside (0, 1), :class:`DataError` when a part would be empty.
    """
    if not 0 < fraction < 1:
        raise OptionError("fraction", expected="a number between 0 and 1", got=fraction)
    held_out = draw_held_out(dataset.ids, dataset.labels, len(dataset.classes), fraction=fraction, seed=seed)
    n, total = len(dataset), int(held_out.sum())
    if not 0 < total < n:
        raise DataError(dataset.name, expected=f"enough samples to hold out {fraction:g} of them", got=f"{n} samples")
    if bool(held_out[n - total :].all()):
        rest, part = dataset.run(0, n - total), dataset.run(n - total, n)
    else:
        rest, part = dataset.subset(~held_out), dataset.subset(held_out)
    return rest, replace(part, split="validation") if dataset.split == "train" else part


def draw_held_out(ids: Tensor, labels: Tensor, classes: int, *, fraction: float, seed: int) -> Tensor:
    """bool (N,): which of the samples :func:`stratified_split` holds out, by their ids and labels, int64 (N,)."""
    n = len(ids)
    total = round(fraction * n)
    sizes = torch.bincount(labels, minlength=classes)
    exact = sizes.double() * (total / n)
    counts = exact.floor().long()
    by_remainder = (counts - exact).argsort(stable=True)
    counts[by_remainder[: total - int(counts.sum())]] += 1
    by_id = ids.argsort()
    shuffled = by_id[torch.randperm(n, generator=generator(seed, STREAM))]
    held_out = torch.zeros(n, dtype=torch.bool)
    for label in range(classes):
        members = shuffled[labels[shuffled] == label]
        held_out[members[: counts[label]]] = True
    return held_out
