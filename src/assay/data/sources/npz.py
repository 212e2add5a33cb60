"""NumPy archives (``.npz``) of images and labels, read without unpickling anything."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from assay.data.arrays import AnyArray, build_dataset, to_image_bytes
from assay.data.dataset import ImageDataset
from assay.data.labels import Values, assign_classes, one_column, read_labels
from assay.data.reading import SPLIT_WORDS, Reading, choose_split, listing, readable
from assay.data.sources.columns import find_named, pick
from assay.errors import DataError
from assay.wording import plural

IMAGE_WORDS = ("images", "image", "imgs", "img", "x", "data", "pixels", "inputs", "input", "pictures")
LABEL_WORDS = ("labels", "label", "y", "targets", "target", "fine_labels", "fine_label")
MAPPED = 1 << 20  # bytes: smaller arrays are read whole
_LOCAL_HEADER = 30  # bytes, before the name of a member of a zip archive
CLASS_WORDS = ("classes", "class_names", "label_names", "names")


def load_npz(
    files: Sequence[Path], *, name: str, split: str, reading: Reading, others: Sequence[Path] = ()
) -> ImageDataset:
    """Read one archive with arrays such as ``x_test`` and ``y_test``, ``train_images`` and ``train_labels``, or
    ``images`` and ``labels``; see :func:`assay.data.arrays.to_image_bytes` for layouts and scales.

    Labels are (N,) numbers or text, (N, 1), or one-hot (N, K). Class names come from an array ``classes``,
    ``class_names`` or ``label_names`` where there is one. ``split``, from the file's name, holds where
    the names of the arrays contain none. ``reading.image_column`` and ``reading.label_column`` name the two arrays of
    an archive that calls them otherwise, which is then read without splits.
    """
    if len(files) > 1:
        raise DataError(name, expected="one .npz file", got=", ".join(file.name for file in files))
    path = files[0]
    with _opened(path) as archive:
        is_named = reading.image_column is not None or reading.label_column is not None
        find = partial(_named_part, reading=reading) if is_named else _find_parts
        parts = find(archive, where=str(path))
        part_name, (image_key, label_key) = choose_split(parts, wanted=reading.split, where=str(path))
        images, labels = (_read(archive, key, path=path) for key in (image_key, label_key))
        names = next((_read(archive, key, path=path) for key in archive.files if key.lower() in CLASS_WORDS), None)
        more = [_read(archive, key, path=path) for part, (_, key) in parts.items() if part != part_name]
        used = {*CLASS_WORDS, *(key for keys in parts.values() for key in keys)}
        unused = [key for key in archive.files if key not in used and key.lower() not in used]
    for other in others if names is None and not is_named else ():
        more += _read_other_labels(other)
    where = f"{path}:{label_key}"
    stored, width = _as_labels(labels, where=where)
    if len(images) != len(stored):
        got = f"{len(images)} images and {len(stored)} labels"
        raise DataError(where, expected="one label for each image", got=got)
    classes = tuple(map(str, range(width))) if width else None
    if names is not None:
        classes = _texts_of(names, where=f"{path}: class names")
        stored, _ = _as_labels(labels, where=where, names=classes)
    of_others = [_as_labels(array, where=where, names=classes)[0] for array in more if array.ndim in {1, 2}]
    split = split if part_name == "all" else part_name

    def read_images(chosen: NDArray[np.int64], notes: list[str]) -> Tensor:
        return to_image_bytes(images, where=f"{path}:{image_key}", chosen=chosen, notes=notes)

    labelling = assign_classes(stored, names=classes, where=where, others=of_others)
    notes = [f"{path}: {plural(len(unused), 'array')} not used: {listing(unused)}"] if unused else []
    return build_dataset(labelling, read_images, name=name, split=split, reading=reading, notes=notes)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not zipfile.is_zipfile(path):
        raise DataError(str(path), expected="a NumPy archive (.npz)", got=_describe_content(path))
    unreadable = readable(path, "a readable NumPy archive")
    with unreadable, path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        yield archive


def _read_other_labels(path: Path) -> list[AnyArray]:
    """The labels in the file of another split of the same set."""
    with _opened(path) as archive:
        parts = _find_parts(archive, where=str(path))
        return [_read(archive, key, path=path) for _, key in parts.values()]


def _as_labels(array: AnyArray, *, where: str, names: tuple[str, ...] | None = None) -> tuple[Values, int | None]:
    column, width = one_column(array, where=where)
    return read_labels(column, where=where, names=names), width


def _texts_of(names: AnyArray, *, where: str) -> tuple[str, ...]:
    if names.ndim != 1:
        raise DataError(where, expected="one name a class", got=f"shape {names.shape}")
    return tuple(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in names.tolist())


def _find_parts(archive: Any, *, where: str) -> dict[str, tuple[str, str]]:
    """The names of the arrays (images, labels) by split; failing that, the only ones of the right dimensions."""
    by_split: dict[str, dict[str, str]] = {}
    for key in archive.files:
        words = key.lower().replace("-", "_").split("_")
        split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "all")
        rest = "_".join(word for word in words if word not in SPLIT_WORDS)
        by_split.setdefault(split, {})[rest] = key
    parts = {}
    for split, keys in by_split.items():
        images = next((keys[word] for word in IMAGE_WORDS if word in keys), None)
        labels = next((keys[word] for word in LABEL_WORDS if word in keys), None)
        if images and labels:
            parts[split] = (images, labels)
    if parts:
        return parts
    shapes = {key: archive[key].shape for key in archive.files if key.lower() not in CLASS_WORDS}
    images_like = [key for key, shape in shapes.items() if len(shape) in {3, 4}]
    labels_like = [key for key, shape in shapes.items() if len(shape) == 1]
    if len(images_like) == len(labels_like) == 1:
        return {"all": (images_like[0], labels_like[0])}
    listed = ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "none"
    expected = (
        "images and labels, or x_test and y_test, x_train and y_train (--image-column and --label-column name others)"
    )
    raise DataError(f"{where}: arrays", expected=expected, got=listed[:200])


def _named_part(archive: Any, *, reading: Reading, where: str) -> dict[str, tuple[str, str]]:
    """The arrays that the options name; where they name one, the other by its usual name or as the only one."""
    keys = [key for key in archive.files if key.lower() not in CLASS_WORDS]
    image, label = (
        None if name is None else find_named(keys, name, option=option, where=f"{where}: arrays", what="array")
        for name, option in ((reading.image_column, "--image-column"), (reading.label_column, "--label-column"))
    )
    rest = [key for key in keys if key not in {image, label}]
    image, label = image or pick(rest, IMAGE_WORDS), label or pick(rest, LABEL_WORDS)
    if image is None or label is None:
        option = "--image-column" if image is None else "--label-column"
        raise DataError(f"{where}: arrays", expected=f"{option} as well", got=listing(keys, most=12))
    return {"all": (image, label)}


def _read(archive: Any, key: str, *, path: Path) -> AnyArray:
    try:
        mapped = _mapped(archive, key, path=path)
        return np.asarray(archive[key]) if mapped is None else mapped
    except ValueError as error:
        if "allow_pickle" in str(error):
            got = "Python objects, which only unpickling can read, and that can run code"
            raise DataError(f"{path}:{key}", expected="an array of numbers or text", got=got) from None
        raise


def _mapped(archive: Any, key: str, *, path: Path) -> AnyArray | None:
    """An array that is stored as it is, mapped so that only what is used is read; None where it is compressed."""
    names = (f"{key}.npy", key)
    member = next((each for each in archive.zip.infolist() if each.filename in names), None)
    if member is None or member.compress_type != zipfile.ZIP_STORED or member.file_size < MAPPED:
        return None
    with archive.zip.open(member) as content:  # to its end, where the checksum is compared
        while content.read(MAPPED):
            pass
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        if header[:4] != b"PK\3\4":
            return None
        name, extra = struct.unpack("<HH", header[26:30])
        file.seek(member.header_offset + _LOCAL_HEADER + name + extra)
        version = np.lib.format.read_magic(file)
        if version not in {(1, 0), (2, 0)}:
            return None
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read_header(file)
        if dtype.hasobject:
            return None
        start = file.tell()
    return np.memmap(path, dtype, "r", start, shape, "F" if in_columns else "C")


def _describe_content(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(8)
    if head[:1] == b"\x80":
        return "a pickle, which is not read because it can run code"
    if head.startswith(b"\x93NUMPY"):
        return "a single NumPy array (.npy), without labels"
    return "an empty file" if not head else "something else, or a truncated one"
