"""A set read in shards: every process decodes its own samples, which keep the ids and classes of the whole set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError, OptionError
from assay.runtime.sharding import Shard

Places = NDArray[np.int64]


class PictureTrait(NamedTuple):
    """Something that is to be told of a picture, such as why it is broken, with its place in the order of decoding."""

    place: int
    trait: str
    name: str


@dataclass(frozen=True)
class PictureFacts:
    """What the notes on decoded pictures follow from, so that those on all of a set can be made of its shards'.

    ``brightest`` pixel of each type, and the ``broken`` of which ``max_bad`` may be left out.
    """

    where: str
    brightest: Mapping[np.dtype[Any], float]
    traits: tuple[PictureTrait, ...]
    broken: tuple[PictureTrait, ...]
    max_bad: int


@dataclass(frozen=True, eq=False)
class Part:
    """One ``shard`` of a set; ``ids`` and ``labels`` int64 (N,) are those of all of its samples, in their order.

    ``scattered`` as the shard itself deals the samples out; else it is a run of neighbours in the source, decoded in
    their order there. ``pictures`` are facts of those that were decoded; ``reads_all`` says that all of them were.
    """

    shard: Shard
    scattered: bool
    ids: Places = field(repr=False)
    labels: Places = field(repr=False)
    pictures: PictureFacts | None = field(default=None, repr=False)
    reads_all: bool = False

    @property
    def index(self) -> int:
        return self.shard.index

    @property
    def count(self) -> int:
        return self.shard.count

    @property
    def n(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """Tells whether two shards are of one set."""
        digest = hashlib.blake2b(np.ascontiguousarray(self.ids).data, digest_size=16)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


class WholeNeededError(DataError):
    """What the pixels of a shard mean depends on those of the others, as with greys of 12 bits in 16."""


class Division:
    """Chooses the samples of one shard among those of the whole set, and keeps what it is a part of."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.part: Part | None = None
        self.pictures: PictureFacts | None = None  # with places in the order in which one process decodes all
        self._decoded: Places = np.empty(0, np.int64)  # where those of one process are that this shard decodes
        self.own: Places = np.empty(0, np.int64)  # ids

    @property
    def in_file(self) -> bool:
        """Whether the pictures go to a file at once."""
        return self.shard.in_file

    def __call__(self, ids: Places, labels: Places, *, scattered: bool = False) -> Places:
        """Which of the samples, as places in the whole set, int64 (M,), are the shard's.

        ``ids`` are all ids in the order of the set, which rise along its source, and ``labels`` their labels. A shard
        is a run of neighbours in the source, so that a process opens its own files and row groups only; ``scattered``
        lets the shard deal them out, where each can be read by itself.

        Raises :class:`OptionError` for more shards than samples.
        """
        n, index, count = len(ids), self.shard.index, self.shard.count
        if n < count:
            raise OptionError("shard", expected=f"at most {n} shards, one a sample", got=count)
        self.part = Part(self.shard, scattered, ids.astype(np.int64), labels.astype(np.int64))
        if scattered:
            places = self.shard.places(n)
            if not len(places):
                raise OptionError("shard", expected=f"a shard of {n} samples that has any", got=f"{index}/{count}")
            self._decoded = places
        else:
            self._decoded = np.array_split(np.arange(n), count)[index]
            run = np.sort(ids)[self._decoded]
            places = np.flatnonzero((ids >= run[0]) & (ids <= run[-1]))
        self.own = ids[places]
        return places

    def keep(self, pictures: PictureFacts) -> None:
        """Keep the facts of the shard's pictures, in the order in which they were decoded."""
        traits, broken = (
            tuple(each._replace(place=int(self._decoded[each.place])) for each in told)
            for told in (pictures.traits, pictures.broken)
        )
        self.pictures = replace(pictures, traits=traits, broken=broken)
