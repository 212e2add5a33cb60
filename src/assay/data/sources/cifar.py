"""CIFAR-10 as its authors publish it: the binary batches, or the Python batches, unpacked or in their archive.

The Python batches are pickles. They are read by an unpickler that knows four names, has an inert replacement for each,
and refuses everything else, so no code from the file ever runs.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data.arrays import build_dataset
from assay.data.dataset import ImageDataset
from assay.data.labels import assign_classes
from assay.data.reading import Reading, readable
from assay.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
RECORD = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes


def find_batches(folder: Path, *, split: str) -> Path | None:
    """Where the batches of a split are: the folder itself, else an archive in it, else nowhere."""
    names = {path.name for path in folder.iterdir()}
    if all({batch, f"{batch}.bin"} & names for batch in BATCHES[split]):
        return folder
    return next((folder / archive for archive in ARCHIVES if archive in names), None)


def load_cifar(path: Path, *, name: str, reading: Reading) -> ImageDataset:
    """Read a folder with the batches or an archive of them, one batch of the folder, or the archive.

    An id is the place in the split's batches, in order.
    """
    if reading.split not in BATCHES:
        raise DataError(str(path), expected="the split 'train' or 'test'", got=repr(reading.split))
    if path.is_file() and path.name not in ARCHIVES:
        path = path.parent
    if path.is_dir():
        path = find_batches(path, split=reading.split) or path
    contents = _read_batches(path, wanted=BATCHES[reading.split])
    parsed = [_parse(content, where=str(path / batch)) for batch, content in contents.items()]
    images, labels = (np.concatenate(parts) for parts in zip(*parsed, strict=True))
    where, split = f"{path} ({reading.split} labels)", reading.split

    def read_images(chosen: NDArray[np.int64], _: list[str]) -> Tensor:
        return torch.from_numpy(images[chosen])

    labelling = assign_classes(labels, names=CLASSES, where=where)
    return build_dataset(labelling, read_images, name=name, split=split, reading=reading)


def _read_batches(path: Path, *, wanted: tuple[str, ...]) -> dict[str, bytes]:
    with readable(path, "readable CIFAR-10 batches"):
        batches = _unpacked(path, wanted) if path.is_dir() else _archived(path, wanted)
    missing = [batch for batch in wanted if batch not in batches]
    if missing:
        raise DataError(str(path), expected=" and ".join(wanted), got=f"no {missing[0]}")
    return {batch: batches[batch] for batch in wanted}


def _unpacked(folder: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    files = {batch: (folder / f"{batch}.bin", folder / batch) for batch in wanted}
    present = {batch: next((file for file in both if file.is_file()), None) for batch, both in files.items()}
    return {batch: file.read_bytes() for batch, file in present.items() if file}


def _archived(archive: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    batches = {}
    with tarfile.open(archive) as members:
        for member in members:
            batch = Path(member.name).name.removesuffix(".bin")
            file = members.extractfile(member) if batch in wanted and member.isfile() else None
            if file is not None:
                batches[batch] = file.read()
                if len(batches) == len(wanted):
                    break
    return batches


def _parse(content: bytes, *, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(N, 3, 32, 32) and (N,) from one batch in either form."""
    if content[:1] == b"\x80":
        return _parse_pickle(content, where=where)
    if not content or len(content) % RECORD:
        got = f"{len(content):,}, a truncated file or another one"
        raise DataError(where, expected=f"a multiple of {RECORD:,} bytes", got=got)
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _parse_pickle(content: bytes, *, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    expected = "a dictionary with data (N, 3072) and labels (N,)"
    with readable(where, expected):
        batch = _DataOnly(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(batch, dict):
        raise DataError(where, expected=expected, got=type(batch).__name__)
    data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise DataError(where, expected=expected, got=f"{type(data).__name__} and {type(labels).__name__}")
    images = data.pixels(where=where)
    if len(labels) != len(images) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(where, expected=f"{len(images)} labels 0..9", got=f"{len(labels)} of them, or other values")
    return images, np.array(labels, np.int64)


class _Array:
    """Replaces a NumPy array while unpickling: stores the state in the file and does nothing."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def pixels(self, *, where: str) -> NDArray[np.uint8]:
        """uint8 (N, 3, 32, 32), built here from plain bytes after every part of the state has been checked."""
        match self.state:
            case (int(), (int(n), 3072), _Type(code="u1"), False | 0, bytes(raw)) if len(raw) == n * 3072:
                return np.frombuffer(raw, np.uint8).reshape(n, 3, 32, 32)
        raise DataError(where, expected="data as uint8 (N, 3072)", got="an array of another type or shape")


class _Type:
    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """The byte order, which single bytes do not have."""


def _rebuild(*_: object) -> _Array:
    return _Array()


def _plain_bytes(text: object = None, encoding: object = None) -> bytes:
    """How old pickle protocols encode bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an unknown spelling")
    return text.encode("latin1")


class _DataOnly(pickle.Unpickler):
    """Knows the names that bytes and arrays need, each as an inert replacement; every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in {"numpy.core.multiarray", "numpy._core.multiarray"}:
            return _rebuild
        known = {("_codecs", "encode"): _plain_bytes, ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type}
        if (module, name) in known:
            return known[module, name]
        raise pickle.UnpicklingError(f"a reference to {module}.{name}, which could run code and is not followed")
