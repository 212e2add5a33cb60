"""Where the pixels of a set lie: in memory, or, where they would fill much of it, in a file that is mapped."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from assay.errors import DataError
from assay.runtime import memory_bytes

MEMORY_SHARE = 0.25  # of the machine's memory that images of its processes may fill before they go to a file
ROWS = 1024  # images a step

Pixels = NDArray[Any]


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any], *, where: str, in_file: bool = False) -> Pixels:
    """Room for images (N, C, H, W), not yet written.

    Where they would fill much of the memory, or are to lie ``in_file``, it is a temporary file (in ``TMPDIR``) without
    a name, which ends with the process; its pages are read on demand, and the system may drop them again.

    Raises :class:`DataError` when they fit neither in memory nor in that folder.
    """
    if not in_file and not _fills_memory(math.prod(shape) * dtype.itemsize):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return map_file(file, shape, dtype, where=where)


def map_file(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], *, where: str) -> Pixels:
    """An open ``file`` made long enough for images (N, C, H, W), and mapped; :func:`allocate` says what it raises."""
    size = math.prod(shape) * dtype.itemsize
    try:
        _reserve(file.fileno(), size)
        mapped: np.memmap[Any, np.dtype[Any]] = np.memmap(file, dtype, "r+", shape=shape)
    except OSError:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        room, disk = (f"{count / 2**30:.1f} GiB" for count in (_memory_room(), free))
        expected = f"images that fit in {room} of memory or the {disk} that TMPDIR has free"
        got = f"{shape[0]:,} of {shape[3]}x{shape[2]} pixels, {size / 2**30:.1f} GiB"
        raise DataError(where, expected=f"{expected} (use --limit or --image-size)", got=got) from None
    return mapped


def take_rows(images: Tensor, rows: Tensor, *, where: str) -> Tensor:
    """``images[rows]`` of images (N, C, H, W) for ``rows`` int64 (M,), in a file where they would fill the memory."""
    if not _fills_memory(len(rows) * images[0].nbytes):
        return images[rows]
    taken = from_numpy(allocate((len(rows), *images.shape[1:]), np.dtype(np.uint8), where=where))
    for start in range(0, len(rows), ROWS):
        taken[start : start + ROWS] = images[rows[start : start + ROWS]]
    return taken


def _fills_memory(size: int) -> bool:
    room = _memory_room()
    return bool(room) and size > room


def _memory_room() -> float:
    """Bytes that the images of this process may fill: its part of those of all that torchrun started here."""
    return MEMORY_SHARE * memory_bytes() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _reserve(handle: int, size: int) -> None:
    """Make the file ``size`` bytes long; a full disk is an ``OSError`` now and not a dead process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    elif shutil.disk_usage(tempfile.gettempdir()).free < size:
        raise OSError("the disk is full")
    else:
        os.truncate(handle, size)
