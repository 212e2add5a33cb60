"""Splitting a set in two so that each half holds the classes in the proportions of the whole."""

from __future__ import annotations

from dataclasses import replace

import torch

from assay.data.dataset import ImageDataset
from assay.errors import DataError, OptionError
from assay.runtime import generator

STREAM = 0x5B117  # keeps these draws apart from every other use of the same seed


def stratified_split(dataset: ImageDataset, *, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """``dataset`` as (kept, held out): ``fraction`` of every class, drawn by ``seed``, is held out.

    The held-out part has round(fraction · N) samples; each class gives fraction · n_c of them, rounded so that the sum
    fits (largest remainders first). Both parts keep the ids and the order of ``dataset``; the held-out part of a
    ``train`` split is called ``validation``. Which samples are drawn depends on ids and seed only, not on their order.

    Raises :class:`OptionError` for a fraction outside (0, 1), :class:`DataError` when a part would be empty.
    """
    if not 0 < fraction < 1:
        raise OptionError("fraction", expected="a number between 0 and 1", got=fraction)
    n, k = len(dataset), len(dataset.classes)
    total = round(fraction * n)
    if not 0 < total < n:
        raise DataError(dataset.name, expected=f"enough samples to hold out {fraction:g} of them", got=f"{n} samples")
    sizes = torch.bincount(dataset.labels, minlength=k)
    exact = sizes.double() * (total / n)
    counts = exact.floor().long()
    by_remainder = (counts - exact).argsort(stable=True)
    counts[by_remainder[: total - int(counts.sum())]] += 1
    by_id = dataset.ids.argsort()
    shuffled = by_id[torch.randperm(n, generator=generator(seed, STREAM))]
    held_out = torch.zeros(n, dtype=torch.bool)
    for label in range(k):
        members = shuffled[dataset.labels[shuffled] == label]
        held_out[members[: counts[label]]] = True
    kept, part = dataset.subset(~held_out), dataset.subset(held_out)
    return kept, replace(part, split="validation") if dataset.split == "train" else part
