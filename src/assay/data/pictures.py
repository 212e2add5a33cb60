"""Image files (PNG, JPEG, …) to one tensor of bytes: decoded in a few threads, unified, the broken ones counted."""

from __future__ import annotations

import base64
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from assay.data.decoding import (
    FORMATS,
    Broken,
    DecodedPicture,
    Pixels,
    decode,
    decode_picture,
    is_in_colour,
    trait_notes,
)
from assay.data.division import PictureFacts, PictureTrait, WholeNeededError
from assay.data.reading import Reading
from assay.data.scale import DARK, Scale, depends_on_all, judge_scale
from assay.data.storage import allocate
from assay.errors import DataError
from assay.records.preparation import Preparation
from assay.runtime.forking import can_fork, forked_pool

__all__ = [
    "FORMATS",
    "Broken",
    "Decoded",
    "Encoded",
    "decode",
    "decode_pictures",
    "jpeg_base64",
    "png_base64",
    "thumbnail_base64",
    "to_bytes",
    "webp_base64",
]

LARGEST_PNG = 128  # pixels a side of an image that is shown as it is
LARGEST_THUMBNAIL = 192  # twice what a picture of a gallery takes on a page
_QUALITY = 75


class PictureStore:
    """``count`` images of one size, appended one by one: uint8 (M, C, H, W), one channel while all are grey.

    More than ``count`` are taken too, by copying what is there into twice the space.

    Greys of 16 bits are stored as they are, and scaled to bytes by the brightest of them when all are there. A large
    set, and any that is to lie ``in_file``, lies where :func:`assay.data.storage.allocate` says.

    Raises :class:`DataError` when they fit neither in memory nor on the disk.
    """

    def __init__(self, *, count: int, where: str, in_file: bool = False) -> None:
        self._count, self._where, self._in_file = count, where, in_file
        self._pixels: Pixels = np.empty((0, 1, 0, 0), np.uint8)
        self._filled = 0
        self._deep: list[int] = []  # the places of those with 16 bits
        self._brightest: dict[np.dtype[Any], int] = {}

    def append(self, pixels: Pixels) -> None:
        """(H, W) grey or (H, W, 3); the first colour makes all of them three channels."""
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        channels, dtype = max(len(planes), self._pixels.shape[1]), np.promote_types(self._pixels.dtype, planes.dtype)
        full = self._filled == self._count
        self._count *= 1 + full
        if self._filled == 0 or full or (channels, dtype) != (self._pixels.shape[1], self._pixels.dtype):
            present, self._pixels = self._pixels, self._allocate((channels, *planes.shape[1:]), dtype)
            if self._filled:
                self._pixels[: self._filled] = present[: self._filled]
        self._pixels[self._filled] = planes
        if planes.dtype == np.uint16:
            self._deep.append(self._filled)
        self._filled += 1
        brightest = self._brightest.get(planes.dtype, 0)
        if planes.dtype == np.uint16 or brightest < DARK:
            self._brightest[planes.dtype] = max(brightest, int(planes.max()))

    def images(self) -> Tensor:
        if not self._deep:
            return torch.from_numpy(self._pixels[: self._filled])
        factor = _scale(np.dtype(np.uint16), self._brightest, where=self._where).factor
        result, deep = self._allocate(self._pixels.shape[1:], np.dtype(np.uint8)), set(self._deep)
        for place, planes in enumerate(self._pixels[: self._filled]):
            result[place] = np.rint(planes * factor) if place in deep else planes
        return torch.from_numpy(result[: self._filled])

    def check_independent(self) -> None:
        """Raise :class:`WholeNeededError` where pictures of other shards could change the scale of these."""
        brightest = self._brightest.get(np.dtype(np.uint16))
        if brightest is not None and depends_on_all(np.dtype(np.uint16), high=brightest, whole=True):
            expected = "pictures of 8 or full 16 bits, where a set is read in shards"
            raise WholeNeededError(self._where, expected=expected, got=f"16 bits of which none is above {brightest}")

    @property
    def brightest(self) -> dict[np.dtype[Any], int]:
        """The brightest pixel of each type; of bytes one that is not dark."""
        return self._brightest

    def notes(self) -> list[str]:
        """What was guessed of the scale."""
        return scale_notes(self._brightest, where=self._where)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pixels:
        return allocate((self._count, *shape), dtype, where=self._where, in_file=self._in_file)


def scale_notes(brightest: Mapping[np.dtype[Any], float], *, where: str) -> list[str]:
    """What was guessed of the scale of pictures, by the brightest pixel of each type."""
    return [note for dtype in brightest if (note := _scale(dtype, brightest, where=where).note)]


def _scale(dtype: np.dtype[Any], brightest: Mapping[np.dtype[Any], float], *, where: str) -> Scale:
    return judge_scale(dtype, low=0, high=brightest[dtype], whole=True, where=where)


CHUNK = 64  # images a task: with one each, passing tasks to the threads takes longer than decoding
CHUNK_BYTES = 1 << 20  # of pixels a task at most: large images are not decoded far ahead
CHUNK_OF_PROCESS = 256
FEW = 2_000  # small pictures that are decoded sooner than processes are started
WORKERS = min(8, os.cpu_count() or 1)
SMALL_BYTES = 3 * 64 * 64  # of pixels: so small a picture is decoded sooner than threads take turns at the interpreter


@dataclass(frozen=True)
class Encoded:
    """One image file: its name in messages, and its bytes or where they are; None when they are missing."""

    name: str
    content: bytes | Path | None


@dataclass(frozen=True, eq=False)
class Decoded:
    """``images`` uint8 (M, C, H, W); ``indices`` int64 (M,), their places in the input; a line for each broken one.

    ``notes`` are on what was guessed or left out of the others.
    """

    images: Tensor
    indices: Tensor
    skipped: tuple[str, ...]
    notes: tuple[str, ...] = ()


_Outcome = DecodedPicture | Broken
_DecodeAll = Callable[[list[Encoded]], list[_Outcome]]


def decode_pictures(
    samples: Iterable[Encoded],
    *,
    count: int,
    reading: Reading,
    where: str,
    everything: Callable[[], Iterable[Encoded]] | None = None,
) -> Decoded:
    """Decode ``count`` images, in order; ``samples`` may be a generator and is never far ahead of the decoding.

    One channel when every image is grey, else three; each as :func:`assay.data.decoding.decode_picture` reads it. Greys
    of 16 bits are scaled by what all of them hold (:func:`assay.data.scale.judge_scale`). Each is resized and cropped
    as ``reading.preparation`` says. Of a shard with grey pictures alone, the headers of ``everything`` in the set tell
    whether any picture is in colour.

    Images that would fill much of the memory lie in a mapped file: see :class:`PictureStore`.

    Raises :class:`DataError` naming the first broken image when there are more than ``reading.max_bad``, naming two
    images when sizes differ, and when they fit neither in memory nor on the disk.
    """
    divide = reading.divide
    store = PictureStore(count=count, where=where, in_file=divide is not None and divide.in_file)
    indices: list[int] = []
    broken: list[PictureTrait] = []
    traits: list[PictureTrait] = []
    first: tuple[str, Pixels] | None = None
    for place, (name, picture) in enumerate(_decode_in_order(samples, preparation=reading.preparation)):
        if isinstance(picture, Broken):
            broken.append(PictureTrait(place, picture.reason, name))
            refuse_broken(broken, most=reading.max_bad)
            continue
        pixels = picture.pixels
        first = first or (name, pixels)
        if pixels.shape[:2] != first[1].shape[:2]:
            expected = f"{_size(first[1])} pixels as in {first[0]}, or an image size to resize all to (--image-size)"
            raise DataError(name, expected=expected, got=f"{_size(pixels)} pixels")
        store.append(pixels)
        traits += [PictureTrait(place, trait, name) for trait in picture.traits]
        indices.append(place)
    if first is None:
        raise DataError(where, expected="at least one readable image", got=f"none ({len(broken)} broken)")
    facts = PictureFacts(where, store.brightest, tuple(traits), tuple(broken), reading.max_bad)
    if divide is not None:
        store.check_independent()
        divide.keep(facts)
    images = store.images()
    if divide is not None and not divide.in_file and everything is not None and images.shape[1] == 1:
        in_colour = any(is_in_colour(each.content) for each in everything())
        images = images.expand(-1, 3, -1, -1).contiguous() if in_colour else images
    return Decoded(images, torch.tensor(indices), tuple(map(told, broken)), picture_notes(facts))


def picture_notes(facts: PictureFacts) -> tuple[str, ...]:
    """What was guessed or left out of pictures."""
    traits = trait_notes((each.trait, each.name) for each in facts.traits)
    return tuple(f"{facts.where}: {note}" for note in (*scale_notes(facts.brightest, where=facts.where), *traits))


def refuse_broken(broken: Sequence[PictureTrait], *, most: int) -> None:
    """Raise :class:`DataError` naming the first of the broken pictures, where there are more than ``most``."""
    if len(broken) > most:
        more = f"; {most} more broken after it, {most} may be skipped"
        expected = "a readable image (--max-bad N skips up to N broken ones)"
        raise DataError(broken[0].name, expected=expected, got=broken[0].trait + (more if most else ""))


def told(broken: PictureTrait) -> str:
    """One line on a broken picture."""
    return f"{broken.name}: {broken.trait}"


def _decode_in_order(
    samples: Iterable[Encoded], *, preparation: Preparation | None
) -> Iterator[tuple[str, DecodedPicture | Broken]]:
    """The pictures with their names: small ones one after the other, from the first larger one on by threads.

    Many small ones are decoded by processes, where this one can be forked.
    """
    source = iter(samples)
    for place, sample in enumerate(source if preparation is None else ()):
        picture = decode_picture(sample.content)
        yield sample.name, picture
        if not isinstance(picture, Broken) and picture.pixels.nbytes > SMALL_BYTES:
            break
        if place >= FEW and can_fork():
            with forked_pool(WORKERS) as pool:
                yield from _decode_by(pool, source, preparation=None, most=CHUNK_OF_PROCESS)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="decode") as pool:
        yield from _decode_by(pool, source, preparation=preparation, most=CHUNK)


def _decode_by(
    pool: Executor, source: Iterator[Encoded], *, preparation: Preparation | None, most: int
) -> Iterator[tuple[str, DecodedPicture | Broken]]:
    """The pictures of ``source`` in order, decoded by the workers of ``pool``, at most ``most`` in one task."""
    size = 1  # images in the next task; the first ones show how large images are
    pending: deque[tuple[list[Encoded], Future[list[_Outcome]]]] = deque()
    decode_all = partial(_decode_chunk, preparation=preparation)
    try:
        while True:
            while len(pending) < 2 * WORKERS and (chunk := list(islice(source, size))):
                pending.append((chunk, _submit(pool, decode_all, chunk)))
            if not pending:
                return
            chunk, future = pending.popleft()
            for sample, picture in zip(chunk, _result(future, decode_all, chunk), strict=True):
                if not isinstance(picture, Broken):
                    size = max(1, min(most, CHUNK_BYTES // picture.pixels.nbytes))
                yield sample.name, picture
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_chunk(chunk: list[Encoded], *, preparation: Preparation | None) -> list[_Outcome]:
    return [decode_picture(sample.content, preparation=preparation) for sample in chunk]


def _submit(pool: Executor, decode_all: _DecodeAll, chunk: list[Encoded]) -> Future[list[_Outcome]]:
    try:
        return pool.submit(decode_all, chunk)
    except BrokenProcessPool:
        done: Future[list[_Outcome]] = Future()
        done.set_result(decode_all(chunk))
        return done


def _result(future: Future[list[_Outcome]], decode_all: _DecodeAll, chunk: list[Encoded]) -> list[_Outcome]:
    """What a worker decoded; where a process was killed, as for want of memory, its task is done here."""
    try:
        return future.result()
    except BrokenProcessPool:
        return decode_all(chunk)


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def png_base64(image: Tensor) -> str:
    """A uint8 (C, H, W) image, C in {1, 3, 4} (of two channels the first is shown), as a PNG file in base64."""
    pixels = image.detach().cpu().numpy()
    shown = pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnail_base64(image: Tensor, *, largest: int = LARGEST_THUMBNAIL) -> str:
    """:func:`png_base64` of a small image; one of more than 128 pixels a side as a JPEG of at most ``largest``.

    For pages, which a dozen photographs as PNG files would make too large.
    """
    if max(image.shape[1:]) <= LARGEST_PNG or len(image) == 4:
        return png_base64(image)
    return jpeg_base64(image, largest=largest)


def jpeg_base64(image: Tensor, *, largest: int | None = None) -> str:
    """A uint8 (C, H, W) image, C in {1, 3} (of two channels the first is shown), as a JPEG file in base64.

    It is made smaller where a side is longer than the ``largest`` in pixels.
    """
    pixels = image.detach().cpu().numpy()
    shown = Image.fromarray(pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if largest is not None:
        shown.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def webp_base64(image: Tensor, *, largest: int | None = None, quality: int = 90) -> str:
    """A uint8 (C, H, W) image, C in {1, 3, 4} (of two channels the first is shown), as a WebP file in base64.

    It is made smaller where a side is longer than the ``largest`` in pixels. Of a photograph it takes about half of
    what a JPEG file takes, and a tenth of a PNG file.
    """
    pixels = image.detach().cpu().numpy()
    shown = Image.fromarray(pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if largest is not None:
        shown.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="WEBP", quality=quality)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def to_bytes(images: Tensor) -> Tensor:
    """Floating pixels in [0, 1], any shape, to uint8 by rounding to the nearest of the 256 grey levels."""
    return images.detach().float().mul(255).round_().clamp_(0, 255).to("cpu").byte()
