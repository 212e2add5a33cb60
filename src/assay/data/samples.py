"""Telling two sets of samples apart, or knowing that they are the same."""

from __future__ import annotations

import hashlib

import torch

from assay.data.dataset import ImageDataset
from assay.records.samples import SampleBits, SampleLevels, SampleSet, write_runs

MOST_LEVELS = 255  # what one byte a sample can tell
_BLOCK = 1 << 22  # bytes hashed at once, so that a set is never copied whole


def identify_samples(dataset: ImageDataset) -> SampleSet:
    """The ids of ``dataset`` with digests of its labels and pixels, whatever the order the samples stand in."""
    order = dataset.ids.argsort()
    ids, labels = dataset.ids[order], dataset.labels[order]
    pixels = hashlib.blake2b(str(dataset.shape).encode(), digest_size=16)
    for rows in torch.split(order, max(1, _BLOCK // dataset.images[0].numel())):
        pixels.update(dataset.images[rows].contiguous().numpy().data)
    named = torch.stack([ids, labels], dim=1).contiguous().numpy()
    return SampleSet(
        n=len(dataset),
        ids=write_runs(ids.tolist()),
        labels=hashlib.blake2b(named.data, digest_size=16).hexdigest(),
        pixels=pixels.hexdigest(),
    )


def keep_right(dataset: ImageDataset, right: torch.Tensor) -> SampleBits:
    """``right`` bool (N,), one a sample of ``dataset`` in its order, beside the samples it is about."""
    return SampleBits.of(identify_samples(dataset), right.cpu()[dataset.ids.argsort()].tolist())


def keep_levels(dataset: ImageDataset, levels: torch.Tensor) -> SampleLevels:
    """``levels`` int64 (N,) of 0 to 255, one a sample of ``dataset`` in its order, beside the samples."""
    return SampleLevels.of(identify_samples(dataset), levels.cpu()[dataset.ids.argsort()].tolist())
