"""A ``torch.utils.data.DataLoader``: the samples of its data set in a stable order; what is not kept is noted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)
from torch.utils.data._utils.collate import default_convert

from assay.data.origins import Origin, Places, find_origin, told
from assay.errors import DataError

HERE = "DataLoader"
EACH_ONCE = "a loader that gives each sample once (hand over loader.dataset)"
CHUNK = 32  # samples that a worker sends at once


def of_loader(loader: DataLoader[Any], *, split: str | None) -> Origin | None:
    """The samples of a loader, by the data set behind it; None where that is none of labelled images.

    Raises :class:`DataError` for a loader that repeats samples or draws some of them.
    """
    origin = find_origin(loader.dataset, split=split)
    if origin is None:
        return None
    if isinstance(loader.dataset, IterableDataset) or origin.places is None:
        workers = f"{HERE}: read in one process, not by its {loader.num_workers} workers"
        notes = (*origin.notes, *([workers] if loader.num_workers else []))
        return _collated(loader, replace(origin, notes=notes))
    told_of: list[str] = []
    chosen, shuffled = _places(loader, len(origin.places))
    if shuffled:
        told_of.append(f"{HERE}: it shuffles: read in the order of its data set")
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    left = len(chosen) % size if isinstance(size, int) and size else 0
    if left and (loader.drop_last or getattr(loader.batch_sampler, "drop_last", False)):
        if left == len(chosen):
            raise DataError(HERE, expected="at least one batch", got=f"none: drop_last leaves out all {left} samples")
        what = f"{left} of its samples" if shuffled else f"its last {left}"
        told_of.append(f"{HERE}: drop_last leaves out {what}: they are read as well")
    return _collated(loader, _by_workers(loader, origin).at(chosen, *told_of))


def _places(loader: DataLoader[Any], count: int) -> tuple[Places, bool]:
    """The places that a loader reads, in its order where that is always the same, and whether it is not."""
    sampler: Any = loader.sampler
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        sampler = loader.batch_sampler  # somebody's own: its batches tell the order
    if isinstance(sampler, SequentialSampler):
        return np.arange(count), False
    if isinstance(sampler, RandomSampler | WeightedRandomSampler):
        if sampler.replacement:
            raise DataError(HERE, expected=EACH_ONCE, got=f"a {type(sampler).__name__} with replacement")
        if sampler.num_samples != count:
            got = f"a {type(sampler).__name__} that draws {sampler.num_samples:,} of {count:,} samples"
            raise DataError(HERE, expected=EACH_ONCE, got=got)
        return np.arange(count), True
    if isinstance(sampler, SubsetRandomSampler):
        return np.sort(np.asarray([int(each) for each in sampler.indices], np.int64)), True
    if isinstance(sampler, DistributedSampler):  # the part of one process; assay itself divides the work
        return np.arange(count), sampler.shuffle
    first, second = (_flat(sampler) for _ in range(2))
    if len(first) == len(second) and (first == second).all():
        return first, False
    if len(first) != len(second) or (np.sort(first) != np.sort(second)).any():
        got = f"a {type(sampler).__name__} that draws others each time"
        raise DataError(HERE, expected=EACH_ONCE, got=got)
    return np.sort(first), True


def _flat(sampler: Sampler[Any]) -> Places:
    with told(HERE, "a sampler of indices"):
        batches = [list(each) if isinstance(each, list | tuple | Tensor) else [each] for each in sampler]
        return np.asarray([int(each) for batch in batches for each in batch], np.int64)


class _AsList(Dataset[Any]):
    """Items with their places, so that workers may read them."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, place: int) -> Any:
        return self.dataset[place]


def _unchanged(items: list[Any]) -> list[Any]:
    return items


def _by_workers(loader: DataLoader[Any], origin: Origin) -> Origin:
    """The same items, read by as many workers as the loader has."""
    if not loader.num_workers or not origin.computed:
        return origin
    dataset = loader.dataset
    while isinstance(dataset, Subset):  # whose samples go by their places in the whole
        dataset = dataset.dataset

    def read(places: Places | None) -> Iterator[Any]:
        if places is None or len(places) <= CHUNK:
            yield from origin.read(places)
            return
        workers = DataLoader(
            _AsList(dataset),
            batch_size=CHUNK,
            sampler=places.tolist(),
            num_workers=loader.num_workers,
            collate_fn=_unchanged,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
        )
        with told(HERE, "samples that its workers can read"):
            for batch in workers:
                yield from batch

    return replace(origin, read=read)


def _collated(loader: DataLoader[Any], origin: Origin) -> Origin:
    """Items as the loader's own function makes a batch of each."""
    collate = loader.collate_fn
    if collate in {default_collate, default_convert}:
        return origin

    def read(places: Places | None) -> Iterator[Any]:
        for item in origin.read(places):
            with told(f"{HERE}: collate_fn", "a batch of one sample"):
                batch = collate([item])
                yield _only(batch)

    return replace(origin, read=read, computed=True, transformed=True)


def _only(batch: Any) -> Any:
    """The item of a batch of one."""
    if isinstance(batch, Mapping):
        return {key: _first(value) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(map(_first, batch))
    raise TypeError(f"a batch that is a {type(batch).__name__}")


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple | np.ndarray | torch.Tensor) and len(value) == 1 else value
