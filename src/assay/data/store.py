"""Where decoded pictures are kept: in memory while that is little of it, else in a mapped file of their own."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import DataError
from assay.runtime import memory_bytes

SHARE = 0.25  # of the machine's memory that pictures may fill before they go to a file


class PictureStore:
    """``count`` pictures of one size, appended one by one: uint8 (M, C, H, W), one channel while all are grey.

    A large set lies in a temporary file (in ``TMPDIR``) that has no name and is gone with the process; its pages are
    read as they are asked for, and the system may drop them again.

    Raises :class:`DataError` when they fit neither in memory nor in that folder.
    """

    def __init__(self, *, count: int, where: str) -> None:
        self._count, self._where = count, where
        self._pixels: NDArray[np.uint8] = np.empty((0, 1, 0, 0), np.uint8)
        self._filled = 0

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """(H, W) grey or (H, W, 3); the first colour makes all of them three channels."""
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if self._filled == 0:
            self._pixels = self._room(planes.shape)
        elif len(planes) > self._pixels.shape[1]:
            grey, self._pixels = self._pixels, self._room(planes.shape)
            self._pixels[: self._filled] = grey[: self._filled]
        self._pixels[self._filled] = planes
        self._filled += 1

    def images(self) -> Tensor:
        """All that were appended; they share the store's memory."""
        return torch.from_numpy(self._pixels[: self._filled])

    def _room(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        whole = (self._count, *shape)
        size, present = math.prod(whole), memory_bytes()
        if not present or size <= SHARE * present:
            return np.empty(whole, np.uint8)
        with tempfile.TemporaryFile() as file:
            try:
                _reserve(file.fileno(), size)
                mapped: np.memmap[Any, np.dtype[np.uint8]] = np.memmap(file, np.uint8, "r+", shape=whole)
            except OSError:
                free = shutil.disk_usage(tempfile.gettempdir()).free
                raise DataError(
                    self._where,
                    expected=f"images that fit in {SHARE * present / 2**30:.1f} GiB of memory or the "
                    f"{free / 2**30:.1f} GiB that TMPDIR has free (use --limit or --image-size)",
                    got=f"{self._count:,} of {shape[2]}x{shape[1]} pixels, {size / 2**30:.1f} GiB",
                ) from None
        return mapped


def _reserve(handle: int, size: int) -> None:
    """Make the file ``size`` bytes long; a full disk is an ``OSError`` now and not a dead process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    elif shutil.disk_usage(tempfile.gettempdir()).free < size:
        raise OSError("the disk is full")
    else:
        os.truncate(handle, size)
