"""A set that the processes of one machine read together: each decodes its own share, and all of them map all of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from assay.data.dataset import ImageDataset
from assay.data.division import Part, PictureFacts
from assay.data.metadata import Column
from assay.data.pictures import picture_notes, refuse_broken, told
from assay.data.storage import ROWS, Pixels, map_file
from assay.errors import AssayError, DataError
from assay.runtime.processes import Processes
from assay.runtime.sharding import MachineShard, Shard

T = TypeVar("T")
Read = Callable[[Shard | None], ImageDataset]
Arrange = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, eq=False)
class _Share:
    """What the other processes are told of the samples that one has decoded: all but their pixels."""

    digest: str
    ids: Tensor
    labels: Tensor
    shape: tuple[int, int, int]
    filenames: tuple[str, ...] | None
    metadata: Mapping[str, Column]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: PictureFacts | None
    reads_all: bool


def read_together(read: Read, processes: Processes, *, arrange: Arrange | None = None) -> ImageDataset:
    """The whole set, as one process reads it, of which each process of a machine decodes its own share alone.

    The pixels lie in one file of each machine (in ``TMPDIR``), which has no name any more when they are written, and
    which all of its processes map: more processes take no more memory. All have to call it. Where a share cannot be
    read by itself, each process reads everything, and fails or not as one does alone.

    Args:
        read: reads the samples of one shard; all of them for None.
        processes: those that read; one alone reads all.
        arrange: from ids int64 (N,), labels (N,) and the number of classes to the order of the samples, int64 (N,).

    Raises :class:`AssayError` as ``read`` does, and :class:`DataError` where the processes read different samples, or
    there is no room for the pixels.
    """
    if processes.world == 1:
        return read(None)
    here = _gather_here(processes, processes.rank)
    own = _try_to_read(read, MachineShard(here.index(processes.rank), len(here)))
    everywhere = processes.gather((_machine(), None if own is None else _describe(own)))
    if own is None or any(share is None for _, share in everywhere):
        return read(None)  # fewer samples than processes, or what fails then as it does in one process
    part = own.part
    assert part is not None
    shares = [share for machine, share in everywhere if machine == _machine() and share is not None]
    joined = _JoinedShares(part, shares, name=own.name)
    order = torch.from_numpy(joined.order)
    if arrange is not None:
        order = order[arrange(joined.ids[order], joined.labels[order], len(own.classes))]
    rows = torch.empty_like(order)
    rows[order] = torch.arange(len(order))
    start = sum(len(share.ids) for share in shares[: part.index])
    written = rows[start : start + len(own)]
    skipped, notes = joined.notes()
    images = _share_pixels(own.images, written, joined.shape, len(order), processes, name=own.name)
    return replace(
        own,
        images=images,
        labels=joined.labels[order],
        ids=joined.ids[order],
        filenames=joined.filenames(order),
        metadata=joined.metadata(order),
        skipped=skipped,
        notes=notes,
        part=None,
    )


def _machine() -> str:
    """What the processes of one machine have in common: torchrun numbers the machines."""
    return os.environ.get("GROUP_RANK", "0")


def _gather_here(processes: Processes, value: T) -> list[T]:
    """The ``value`` of every process of this machine, by rank; a barrier of all processes."""
    return [each for machine, each in processes.gather((_machine(), value)) if machine == _machine()]


def _try_to_read(read: Read, shard: Shard) -> ImageDataset | None:
    try:
        return read(shard)
    except AssayError:
        return None


def _describe(own: ImageDataset) -> _Share:
    part = own.part
    assert part is not None
    told_of = (own.filenames, own.metadata, own.skipped, own.notes, part.pictures, part.reads_all)
    return _Share(part.digest, own.ids, own.labels, own.shape, *told_of)


class _JoinedShares:
    """The samples of all shares, one share after the other; ``order`` int64 (N,) is that of the set."""

    def __init__(self, part: Part, shares: Sequence[_Share], *, name: str) -> None:
        if len({share.digest for share in shares}) > 1:
            raise DataError(name, expected="the same samples in every process", got="different ones")
        self._part, self._shares, self._name = part, shares, name
        self.ids, self.labels = (torch.cat(values) for values in zip(*((s.ids, s.labels) for s in shares), strict=True))
        places = {identity: place for place, identity in enumerate(part.ids.tolist())}
        self.order = np.argsort([places[identity] for identity in self.ids.tolist()])
        self.shape = self._agreed_shape()

    def _agreed_shape(self) -> tuple[int, int, int]:
        """In colour where any picture is. Raises :class:`DataError` for pictures of several sizes."""
        shapes = [share.shape for share in self._shares for _ in share.ids]
        ordered = [shapes[place] for place in self.order.tolist()]
        other = next((place for place, shape in enumerate(ordered) if shape[1:] != ordered[0][1:]), None)
        if other is not None:
            first, second = (self._called(self.order[place]) for place in (0, other))
            size, got = (f"{shape[2]}x{shape[1]} pixels" for shape in (ordered[0], ordered[other]))
            expected = f"{size} as in {first}, or an image size to resize all to (--image-size)"
            raise DataError(second, expected=expected, got=got)
        return (max(channels for channels, _, _ in shapes), *ordered[0][1:])

    def _called(self, place: int) -> str:
        names = self.filenames(torch.tensor([place]))
        return f"{self._name}[{int(self.ids[place])}]" if names is None else names[0]

    def filenames(self, order: Tensor) -> tuple[str, ...] | None:
        given = [share.filenames for share in self._shares]
        names = list(chain.from_iterable(each for each in given if each is not None))
        return tuple(names[place] for place in order.tolist()) if None not in given else None

    def metadata(self, order: Tensor) -> dict[str, Column]:
        columns = {name: [share.metadata[name] for share in self._shares] for name in self._shares[0].metadata}
        return {name: np.concatenate(parts)[order.numpy()] for name, parts in columns.items()}

    def pictures(self) -> PictureFacts | None:
        """The facts of all pictures, in the order in which one process decodes them; None where some are not known."""
        given = [share.pictures for share in self._shares]
        facts = [each for each in given if each is not None]
        if len(facts) < len(given):
            return None
        brightest: dict[np.dtype[Any], float] = {}
        for each in facts:
            for dtype, value in each.brightest.items():
                brightest[dtype] = max(value, brightest.get(dtype, 0))
        traits, broken = (
            tuple(sorted(chain.from_iterable(told_of), key=attrgetter("place")))
            for told_of in zip(*((each.traits, each.broken) for each in facts), strict=True)
        )
        return PictureFacts(facts[0].where, brightest, traits, broken, facts[0].max_bad)

    def notes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those on broken pictures, and all others, as one process tells them.

        Raises :class:`DataError` for more broken pictures than may be left out.
        """
        complete = next((share for share in self._shares if share.reads_all), None)
        if complete is not None:
            return complete.skipped, complete.notes[:-1]  # the last tells that it read all
        pictures = self.pictures()
        if pictures is None:
            return (), tuple(dict.fromkeys(chain.from_iterable(share.notes for share in self._shares)))
        refuse_broken(pictures.broken, most=pictures.max_bad)
        own = [() if share.pictures is None else picture_notes(share.pictures) for share in self._shares]
        most = max(range(len(own)), key=lambda index: len(own[index]))
        notes, of_pictures = self._shares[most].notes, own[most]
        first = next((place for place, note in enumerate(notes) if note in of_pictures), len(notes))
        others = (notes[:first], notes[first + len(of_pictures) :])
        return tuple(map(told, pictures.broken)), (*others[0], *picture_notes(pictures), *others[1])


def _share_pixels(
    own: Tensor, rows: Tensor, shape: tuple[int, int, int], n: int, processes: Processes, *, name: str
) -> Tensor:
    """The images of all shares (``n``, C, H, W), of which this process writes its ``own`` at ``rows`` int64 (M,)."""
    leads = _gather_here(processes, processes.rank)[0] == processes.rank
    path = _gather_here(processes, _new_file() if leads else None)[0]
    assert path is not None
    images, error = None, None
    with path.open("r+b") as file:
        processes.gather(None)  # all have opened it
        for turn in (True, False):  # one makes it long enough, the others find it so
            if leads == turn:
                path.unlink(missing_ok=True)
                images, error = _map(file, (n, *shape), name=name)
            for failure in filter(None, processes.gather(error)):
                raise failure
    assert images is not None
    for start in range(0, len(own), ROWS):
        images[rows[start : start + ROWS].numpy()] = own[start : start + ROWS].numpy()
    processes.gather(None)  # all have written theirs
    return torch.from_numpy(images)


def _new_file() -> Path:
    handle, path = tempfile.mkstemp(prefix="assay-")
    os.close(handle)
    return Path(path)


def _map(file: IO[bytes], shape: tuple[int, ...], *, name: str) -> tuple[Pixels | None, DataError | None]:
    try:
        return map_file(file, shape, np.dtype(np.uint8), where=name), None
    except DataError as error:
        return None, error
