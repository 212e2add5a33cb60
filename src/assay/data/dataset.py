"""Labelled images in memory: bytes, labels, class names, and a stable id for every sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from assay.arguments import checked_fields
from assay.data.division import Part
from assay.data.metadata import check_columns, take
from assay.data.storage import take_rows
from assay.errors import DataError
from assay.records.preparation import Preparation
from assay.records.samples import SampleBits, SampleLevels, SampleSet, write_runs


class Batch(NamedTuple):
    """A slice of a data set: ``images`` uint8 (B, C, H, W), ``labels`` int64 (B,), ``ids`` int64 (B,)."""

    images: Tensor
    labels: Tensor
    ids: Tensor


@checked_fields
@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A validated set of labelled images in memory.

    Args:
        images: uint8 (N, C, H, W), C in 1..4.
        labels: int64 (N,), 0 ≤ label < len(classes).
        classes: class names in the order of the labels; at least two.
        name: what the user called the set.
        split: ``train``, ``validation``, ``test`` or ``all``.
        ids: int64 (N,), distinct: a sample's place in its source, which every subset preserves. Default: 0..N−1.
        filenames: the samples' file names in their source, where it has them.
        skipped: broken images that were left out, each with the reason.
        notes: what else a user must know of how the set was read, one line each: what was left out or guessed.
        preparation: how the pictures were resized and cropped; None where they are as they were stored.
        read_again: reads samples, by their ids, in another preparation from where they are stored; None for a set made
            of tensors.
        part: which shard this is, and of what set, where it was read in shards; None for all of it.
        metadata: what else the source tells of each sample, by the name of the column: arrays (N,) of int64, float64,
            bool, or objects that are text or None. Every subset takes its part along.

    Raises:
        DataError: a wrong dtype, shape or range; the message says where, what was expected and what is there.

    Example:
        >>> import torch
        >>> from assay import ImageDataset
        >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> data = ImageDataset(images, torch.tensor([0, 1, 1, 0]), classes=("cat", "dog"))
        >>> len(data), data.shape, data.subset(data.labels == 1).ids.tolist()
        (4, (3, 8, 8), [1, 2])
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "data"
    split: str = "all"
    ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    filenames: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    preparation: Preparation | None = None
    read_again: Callable[[Preparation, Tensor], ImageDataset] | None = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    part: Part | None = None

    def __post_init__(self) -> None:
        if self.ids.numel() == 0 and len(self.labels) > 0:
            object.__setattr__(self, "ids", torch.arange(len(self.labels)))
        self._check_images()
        self._check_labels()
        n = len(self.images)
        if self.ids.shape != (n,) or self.ids.dtype != torch.int64:
            raise DataError("ids", expected=f"int64 ({n},)", got=f"{self.ids.dtype} {tuple(self.ids.shape)}")
        if len(torch.unique(self.ids)) != n:
            raise DataError("ids", expected="distinct numbers", got="repeated ones")
        if self.filenames is not None and len(self.filenames) != n:
            raise DataError("filenames", expected=f"{n} names", got=len(self.filenames))
        check_columns(self.metadata, n=n)

    def _check_images(self) -> None:
        images = self.images
        if images.dtype != torch.uint8:
            raise DataError("images", expected="uint8 (N, C, H, W)", got=f"{images.dtype} {tuple(images.shape)}")
        if images.ndim != 4:
            raise DataError("images", expected="four dimensions (N, C, H, W)", got=tuple(images.shape))
        if len(images) == 0:
            raise DataError(self.name, expected="at least one image", got="an empty set")
        _, channels, height, width = images.shape
        if not 1 <= channels <= 4:
            hint = "; is it (N, H, W, C)?" if images.shape[3] in {1, 3, 4} else ""
            raise DataError("images", expected=f"1 to 4 channels in (N, C, H, W){hint}", got=tuple(images.shape))
        if height == 0 or width == 0:
            raise DataError("images", expected="pictures of at least one pixel", got=tuple(images.shape))

    def _check_labels(self) -> None:
        labels, n = self.labels, len(self.images)
        if labels.dtype != torch.int64 or labels.shape != (n,):
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise DataError("labels", expected=f"int64 ({n},), one for each image", got=got)
        if len(self.classes) < 2:
            raise DataError("classes", expected="at least two", got=list(self.classes))
        wrong = (labels < 0) | (labels >= len(self.classes))
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            counted = int(labels.min()) == 1 and int(labels.max()) == len(self.classes)
            got = f"{int(labels[first])}{' (the labels count from 1: subtract 1)' if counted else ''}"
            raise DataError(f"labels[{first}]", expected=f"0..{len(self.classes) - 1}", got=got)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return (channels, height, width)

    def sample_name(self, index: int) -> str:
        """A sample's file name where it has one, else its split and id."""
        return f"{self.split}/{int(self.ids[index])}" if self.filenames is None else self.filenames[index]

    def subset(self, indices: Tensor) -> ImageDataset:
        """The samples at ``indices`` (int64 (M,), or a mask (N,) of bool), in that order, with ids and metadata."""
        chosen = indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices
        return self._taken(chosen, take_rows(self.images, chosen, where=self.name))

    def run(self, start: int, stop: int) -> ImageDataset:
        """The samples from place ``start`` to before ``stop``, whose images stay where they are."""
        return self._taken(torch.arange(start, stop), self.images[start:stop])

    def _taken(self, chosen: Tensor, images: Tensor) -> ImageDataset:
        filenames = None if self.filenames is None else tuple(self.filenames[i] for i in chosen.tolist())
        return replace(
            self,
            images=images,
            labels=self.labels[chosen],
            ids=self.ids[chosen],
            filenames=filenames,
            metadata=take(self.metadata, chosen.numpy()),
            part=None,  # of a shard it is not all
        )

    def renumbered(self, numbers: Sequence[int], *, classes: Sequence[str]) -> ImageDataset:
        """The same samples among other ``classes``: what was class k is now class ``numbers[k]`` of them.

        Raises :class:`DataError` for numbers that are not one of these classes for each of the former.
        """
        if len(numbers) != len(self.classes):
            raise DataError("numbers", expected=f"one for each of {len(self.classes)} classes", got=len(numbers))
        again = self.read_again

        def read(preparation: Preparation, ids: Tensor) -> ImageDataset:
            assert again is not None
            return again(preparation, ids).renumbered(numbers, classes=classes)

        labels = torch.tensor(tuple(numbers))[self.labels]
        return replace(self, labels=labels, classes=tuple(classes), read_again=None if again is None else read)

    def arranged(self, ids: Tensor) -> ImageDataset:
        """The samples in the order of ``ids`` (int64, distinct); ids that are not in the set are ignored."""
        places = {identity: place for place, identity in enumerate(self.ids.tolist())}
        return self.subset(torch.tensor([places[i] for i in ids.tolist() if i in places], dtype=torch.int64))

    def batches(self, batch_size: int, *, index: int = 0, count: int = 1) -> Iterator[Batch]:
        """The samples in order, ``batch_size`` at a time; of these batches every ``count``-th from ``index`` on."""
        for start in range(index * batch_size, len(self), count * batch_size):
            part = slice(start, start + batch_size)
            yield Batch(self.images[part], self.labels[part], self.ids[part])


def to_unit_range(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 0..255 to floating [0, 1]: the only place where pixels change their scale."""
    return images.to(dtype).div_(255)


MOST_LEVELS = 255  # the largest number that one byte a sample can hold
_BLOCK = 1 << 22  # bytes hashed at once, so that the images are never copied as one


def identify_samples(dataset: ImageDataset) -> SampleSet:
    """The ids of ``dataset`` with digests of its labels and pixels; the order of the samples has no effect."""
    order = dataset.ids.argsort()
    ids, labels = dataset.ids[order], dataset.labels[order]
    pixels = hashlib.blake2b(str(dataset.shape).encode(), digest_size=16)
    for rows in torch.split(order, max(1, _BLOCK // dataset.images[0].numel())):
        pixels.update(dataset.images[rows].contiguous().numpy().data)
    digest = digest_labels(ids, labels)
    return SampleSet(n=len(dataset), ids=write_runs(ids.tolist()), labels=digest, pixels=pixels.hexdigest())


def digest_labels(ids: Tensor, labels: Tensor) -> str:
    """The digest of labels int64 (N,) of the samples ``ids`` (N,), which are in ascending order."""
    named = torch.stack([ids, labels], dim=1).contiguous().numpy()
    return hashlib.blake2b(named.data, digest_size=16).hexdigest()


def keep_right(dataset: ImageDataset, right: Tensor) -> SampleBits:
    """A record of ``right`` bool (N,), one for each sample of ``dataset`` in its order, with the samples' identity."""
    return SampleBits.of(identify_samples(dataset), right.cpu()[dataset.ids.argsort()].tolist())


def keep_levels(dataset: ImageDataset, levels: Tensor) -> SampleLevels:
    """A record of ``levels`` int64 (N,) of 0..255, one for each sample of ``dataset`` in its order."""
    return SampleLevels.of(identify_samples(dataset), levels.cpu()[dataset.ids.argsort()].tolist())
