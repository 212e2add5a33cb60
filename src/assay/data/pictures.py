"""Image files (PNG, JPEG, …) to one tensor of bytes: decoded in a few threads, unified, the broken ones counted."""

from __future__ import annotations

import base64
import io
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from assay.data.reading import UNREADABLE, Reading
from assay.errors import DataError, one_line
from assay.runtime import memory_bytes

MEMORY_SHARE = 0.25  # of the machine's memory that images may fill before they go to a file


class PictureStore:
    """``count`` images of one size, appended one by one: uint8 (M, C, H, W), one channel while all are grey.

    A large set lies in a temporary file (in ``TMPDIR``) without a name, which ends with the process; its pages are
    read on demand, and the system may drop them again.

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
            self._pixels = self._allocate(planes.shape)
        elif len(planes) > self._pixels.shape[1]:
            grey, self._pixels = self._pixels, self._allocate(planes.shape)
            self._pixels[: self._filled] = grey[: self._filled]
        self._pixels[self._filled] = planes
        self._filled += 1

    def images(self) -> Tensor:
        return torch.from_numpy(self._pixels[: self._filled])

    def _allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        full_shape = (self._count, *shape)
        size, present = math.prod(full_shape), memory_bytes()
        if not present or size <= MEMORY_SHARE * present:
            return np.empty(full_shape, np.uint8)
        with tempfile.TemporaryFile() as file:
            try:
                _reserve(file.fileno(), size)
                mapped: np.memmap[Any, np.dtype[np.uint8]] = np.memmap(file, np.uint8, "r+", shape=full_shape)
            except OSError:
                free = shutil.disk_usage(tempfile.gettempdir()).free
                memory, disk = (f"{count / 2**30:.1f} GiB" for count in (MEMORY_SHARE * present, free))
                expected = f"images that fit in {memory} of memory or the {disk} that TMPDIR has free"
                got = f"{self._count:,} of {shape[2]}x{shape[1]} pixels, {size / 2**30:.1f} GiB"
                hint = " (use --limit or --image-size)"
                raise DataError(self._where, expected=expected + hint, got=got) from None
        return mapped


def _reserve(handle: int, size: int) -> None:
    """Make the file ``size`` bytes long; a full disk is an ``OSError`` now and not a dead process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    elif shutil.disk_usage(tempfile.gettempdir()).free < size:
        raise OSError("the disk is full")
    else:
        os.truncate(handle, size)


# Only these decoders are tried: each is a plain raster format, and none starts another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
)
CHUNK = 64  # images a task: with one each, passing tasks to the threads takes longer than decoding
CHUNK_BYTES = 1 << 22  # of pixels a task at most: large images are not decoded far ahead

BROKEN: tuple[type[Exception], ...] = (*UNREADABLE, Image.DecompressionBombError, Warning)


@dataclass(frozen=True)
class Encoded:
    """One image file: its name in messages, and its bytes or where they are; None when they are missing."""

    name: str
    content: bytes | Path | None


@dataclass(frozen=True, eq=False)
class Decoded:
    """``images`` uint8 (M, C, H, W); ``indices`` int64 (M,), their places in the input; a line for each broken one."""

    images: Tensor
    indices: Tensor
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Broken:
    reason: str


Pixels = NDArray[np.uint8]  # (H, W) grey or (H, W, 3)


def decode_pictures(samples: Iterable[Encoded], *, count: int, reading: Reading, where: str) -> Decoded:
    """Decode ``count`` images, in order; ``samples`` may be a generator and is never far ahead of the decoding.

    One channel when every image is grey, else three: palettes, CMYK and the like become RGB, an alpha channel is
    dropped (as by ``convert("RGB")``, which training pipelines use), 16-bit grey is scaled to 8 bits, and an
    orientation written by a camera is applied. With ``reading.image_size`` the short side is resized to it (bilinear
    with antialiasing) and the centre square cut out.

    Images that would fill much of the memory lie in a mapped file: see :class:`PictureStore`.

    Raises :class:`DataError` naming the first broken image when there are more than ``reading.max_bad``, naming two
    images when sizes differ, and when they fit neither in memory nor on the disk.
    """
    store = PictureStore(count=count, where=where)
    indices: list[int] = []
    skipped: list[str] = []
    first: tuple[str, Pixels] | None = None
    first_broken: tuple[str, str] | None = None
    for place, (name, pixels) in enumerate(_decode_in_order(samples, image_size=reading.image_size)):
        if isinstance(pixels, Broken):
            first_broken = first_broken or (name, pixels.reason)
            skipped.append(f"{name}: {pixels.reason}")
            if len(skipped) > reading.max_bad:
                name, reason = first_broken
                more = f"; {reading.max_bad} more broken after it, {reading.max_bad} may be skipped"
                expected = "a readable image (--max-bad N skips up to N broken ones)"
                raise DataError(name, expected=expected, got=reason + (more if reading.max_bad else ""))
            continue
        first = first or (name, pixels)
        if pixels.shape[:2] != first[1].shape[:2]:
            expected = f"{_size(first[1])} pixels as in {first[0]}, or an image size to resize all to (--image-size)"
            raise DataError(name, expected=expected, got=f"{_size(pixels)} pixels")
        store.append(pixels)
        indices.append(place)
    if first is None:
        raise DataError(where, expected="at least one readable image", got=f"none ({len(skipped)} broken)")
    return Decoded(store.images(), torch.tensor(indices), tuple(skipped))


def _decode_in_order(samples: Iterable[Encoded], *, image_size: int | None) -> Iterator[tuple[str, Pixels | Broken]]:
    def decode_chunk(chunk: list[Encoded]) -> list[Pixels | Broken]:
        return [decode(sample.content, image_size=image_size) for sample in chunk]

    workers, source = min(8, 2 * (os.cpu_count() or 1)), iter(samples)
    size = 1  # images in the next task; the first ones show how large images are
    pending: deque[tuple[list[Encoded], Future[list[Pixels | Broken]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        while True:
            while len(pending) < 2 * workers and (chunk := list(islice(source, size))):
                pending.append((chunk, pool.submit(decode_chunk, chunk)))
            if not pending:
                return
            chunk, future = pending.popleft()
            for sample, pixels in zip(chunk, future.result(), strict=True):
                if not isinstance(pixels, Broken):
                    size = max(1, min(CHUNK, CHUNK_BYTES // pixels.nbytes))
                yield sample.name, pixels
    finally:
        pool.shutdown(cancel_futures=True)


def decode(
    content: bytes | Path | None, *, image_size: int | None = None, most_pixels: int | None = None
) -> Pixels | Broken:
    """One image file to bytes (H, W) or (H, W, 3), or the reason why not.

    An image of more than ``most_pixels`` (default: PIL's bomb guard) is never decoded.
    """
    if content is None:
        return Broken("there are no bytes of a picture")
    try:
        encoded = content.read_bytes() if isinstance(content, Path) else content
        if not encoded:
            return Broken("the file is empty")
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS if most_pixels is None else most_pixels
            if limit is not None and image.width * image.height > limit:
                guard = " (PIL's bomb guard)" if most_pixels is None else ""
                return Broken(f"{image.width}x{image.height} pixels exceed the limit of {limit:,}{guard}")
            picture = eight_bits(ImageOps.exif_transpose(image) if "exif" in image.info else image)
            if image_size is not None:
                picture = resize(picture, image_size)
            return np.array(picture)
    except BROKEN as error:
        return Broken(_reason(error))


def eight_bits(image: Image.Image) -> Image.Image:
    """Any mode of PIL to ``L`` or ``RGB``; raises ``ValueError`` for pixels whose scale is unknown."""
    if image.mode in {"L", "RGB"}:
        image.load()
        return image
    if image.mode in {"1", "LA", "La"}:
        return image.convert("L")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values {values.min()}..{values.max()} are not of 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known scale")
    transparent = image.mode == "P" and "transparency" in image.info
    return (image.convert("RGBA") if transparent else image).convert("RGB")


def resize(image: Image.Image, size: int) -> Image.Image:
    """The short side to ``size`` (bilinear, antialiased), then the ``size`` x ``size`` square at the centre."""
    short = min(image.size)
    width, height = (max(size, round(side * size / short)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _reason(error: BaseException) -> str:
    text = one_line(error)
    return "not a picture in a known format" if "cannot identify image file" in text else text or type(error).__name__


def png_base64(image: Tensor) -> str:
    """A uint8 (C, H, W) image, C in {1, 3, 4} (of two channels the first is shown), as a PNG file in base64."""
    pixels = image.detach().cpu().numpy()
    shown = pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def to_bytes(images: Tensor) -> Tensor:
    """Floating pixels in [0, 1], any shape, to uint8 by rounding to the nearest of the 256 grey levels."""
    return images.detach().float().mul(255).round_().clamp_(0, 255).to("cpu").byte()
