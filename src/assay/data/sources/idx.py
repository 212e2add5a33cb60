"""IDX files, the format of MNIST: a short header and the plain numbers, gzipped or not.

The header is two zero bytes, a byte for the type of the numbers, a byte for the count of dimensions, and each dimension
as a big-endian 32-bit number (LeCun, Cortes and Burges, *The MNIST database of handwritten digits*).
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from assay.data.arrays import build_dataset, to_image_bytes
from assay.data.dataset import ImageDataset
from assay.data.labels import Values, assign_classes, read_labels
from assay.data.reading import Reading, choose_split, group_by_split, readable
from assay.data.sources import format_of
from assay.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAPPED = 1 << 20  # bytes: smaller files are read whole
PIECE = 1 << 24  # bytes a read, so that a damaged header cannot allocate all memory at once

MNIST_CLASSES = tuple("0123456789")
_FASHION = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
FASHION_CLASSES = tuple(_FASHION.split(", "))
# MNIST and Fashion-MNIST use the same file names; their first labels distinguish them.
FIRST_LABELS = {
    (7, 2, 1, 0, 4, 1, 4, 9, 5, 9): MNIST_CLASSES,
    (5, 0, 4, 1, 9, 2, 1, 3, 1, 4): MNIST_CLASSES,
    (9, 2, 1, 1, 6, 1, 4, 6, 5, 7): FASHION_CLASSES,
    (9, 0, 0, 3, 0, 2, 7, 2, 5, 5): FASHION_CLASSES,
}


def is_images_name(name: str) -> bool:
    """Whether a file name is that of the images of a pair, such as ``t10k-images-idx3-ubyte.gz``."""
    file_format = format_of(name)
    return file_format is not None and file_format.name == "idx" and "image" in name.lower()


def load_idx(path: Path, *, name: str, reading: Reading) -> ImageDataset:
    """Read a pair of IDX files: ``path`` is the images' file, the labels' file, or the folder that holds them."""
    split, images_path, labels_path = find_pair(path, wanted=reading.split)
    stored, where = _read_labels(labels_path), str(labels_path)
    names = FIRST_LABELS.get(tuple(stored[:10].tolist()))
    others = [] if names else [_read_labels(file) for file in _labels_beside(labels_path)]

    def read_images(chosen: NDArray[np.int64], notes: list[str]) -> Tensor:
        images = read_idx(images_path, rows=int(chosen.max()) + 1 if len(chosen) else 0, of=len(stored))
        if images.dtype != np.uint8:  # the scale of other numbers is judged by all of them
            images = read_idx(images_path, of=len(stored))
        return to_image_bytes(images, where=str(images_path), chosen=chosen, notes=notes)

    labelling = assign_classes(stored, names=names, where=where, others=others)
    return build_dataset(labelling, read_images, name=name, split=split, reading=reading)


def _read_labels(path: Path) -> Values:
    labels = read_idx(path)
    if labels.ndim != 1:
        raise DataError(str(path), expected="labels in one dimension", got=f"shape {labels.shape}")
    return read_labels(labels, where=str(path))


def _labels_beside(path: Path) -> list[Path]:
    """The labels of the other splits in the same folder, so that every split numbers its classes alike."""
    names = {path.name.removesuffix(".gz")}
    beside = []
    for file in sorted(path.parent.iterdir()):
        stem, file_format = file.name.removesuffix(".gz"), format_of(file.name)
        if "label" in stem and stem not in names and file_format is not None and file_format.name == "idx":
            names.add(stem)
            beside.append(file)
    return beside


def find_pair(path: Path, *, wanted: str) -> tuple[str, Path, Path]:
    """The split, the images' file and the labels' file at ``path``: one of the two files, or their folder."""
    if path.is_dir():
        all_images = sorted(file for file in path.rglob("*") if is_images_name(file.name) and file.is_file())
        folders = sorted({str(file.parent) for file in all_images})
        if len(folders) > 1:
            raise DataError(str(path), expected="one folder with IDX files", got=" and ".join(folders[:3]))
        split, files = choose_split(group_by_split(all_images, root=path), wanted=wanted, where=str(path))
        images = files[0]  # the same file may lie there twice, gzipped and not
        if len({file.name.removesuffix(".gz") for file in files}) > 1:
            raise DataError(str(path), expected="one pair of IDX files", got=", ".join(file.name for file in files))
        return split, images, _partner(images, old="image", new="label", digits="1")
    if re.search("labels?", path.name):
        images = _partner(path, old="label", new="image", digits="34")
        return _split_of_file(images), images, path
    return _split_of_file(path), path, _partner(path, old="image", new="label", digits="1")


def _split_of_file(path: Path) -> str:
    return next(iter(group_by_split([path], root=path.parent)))


def _partner(path: Path, *, old: str, new: str, digits: str) -> Path:
    stem = path.name.removesuffix(".gz").replace(old, new)
    for digit in digits:
        for ending in ("", ".gz"):
            candidate = path.with_name(re.sub(r"idx\d", f"idx{digit}", stem) + ending)
            if candidate != path and candidate.is_file():
                return candidate
    got = f"no file {re.sub(r'idx.', f'idx{digits[0]}', stem)}"
    raise DataError(str(path), expected=f"the {new}s beside it", got=got)


def read_idx(path: Path, *, rows: int | None = None, of: int | None = None) -> NDArray[Any]:
    """The array of one IDX file, gzipped or not; with ``rows`` only its first rows are read.

    ``of`` is how many rows there must be in all. Raises :class:`DataError` for a damaged, truncated or overlong file.
    """
    with readable(path, "a readable IDX file"), path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped and (mapped := _mapped(raw, path=path, of=of)) is not None:
            return mapped if rows is None else mapped[:rows]
        file = gzip.GzipFile(fileobj=raw) if zipped else raw
        return _read_array(file, path=path, rows=rows, of=of)  # type: ignore[arg-type]  # GzipFile reads alike


def _mapped(file: BinaryIO, *, path: Path, of: int | None) -> NDArray[Any] | None:
    """The bytes of a large file, mapped so that only what is used is read; None for what has to be looked at closer."""
    size, head = os.fstat(file.fileno()).st_size, file.read(4)
    if size >= MAPPED and head[:3] == b"\0\0\x08" and 1 <= head[3] <= 4:
        shape = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
        if file.tell() + math.prod(shape) == size and of in {None, shape[0]}:
            return np.memmap(path, np.uint8, "r", file.tell(), shape)
    file.seek(0)
    return None


def _read_array(file: BinaryIO, *, path: Path, rows: int | None, of: int | None) -> NDArray[Any]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= 4:
        expected = "the header of an IDX file (0, 0, type, dimensions)"
        raise DataError(str(path), expected=expected, got=head.hex() or "nothing")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(str(path), expected=f"{head[3]} dimensions in the header", got="a truncated file")
    shape = struct.unpack(f">{head[3]}I", sizes)
    if of is not None and shape[0] != of:
        raise DataError(str(path), expected=f"{of} rows, one for each label", got=shape[0])
    dtype = np.dtype(TYPES[head[2]])
    count = shape[0] if rows is None else min(rows, shape[0])
    needed = count * math.prod(shape[1:]) * dtype.itemsize
    content = bytearray()
    while len(content) < needed and (piece := file.read(min(PIECE, needed - len(content)))):
        content += piece
    if len(content) < needed:
        raise DataError(str(path), expected=f"{needed:,} bytes of numbers", got=f"{len(content):,}, a truncated file")
    if count == shape[0] and file.read(1):
        got = "more: the header does not fit the file"
        raise DataError(str(path), expected=f"{needed:,} bytes of numbers", got=got)
    array = np.frombuffer(bytes(content), dtype).reshape(count, *shape[1:])
    return array.astype(dtype.newbyteorder("="), copy=False)
