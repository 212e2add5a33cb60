"""A folder of class folders: ``root/cat/1.png``, or ``root/train/cat/1.png`` and ``root/test/cat/2.png``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from assay.data.dataset import ImageDataset
from assay.data.pictures import SUFFIXES, Encoded, decode_pictures
from assay.data.reading import Reading, choose_split, split_of
from assay.data.selection import interleave
from assay.errors import DataError

Classes = dict[str, list[Path]]  # class name -> its images, sorted


def load_folder(root: Path, *, name: str, reading: Reading) -> ImageDataset:
    """Read class folders; classes are numbered in the sorted order of the folder names, as torchvision does.

    Sub-folders named ``train``, ``test``, ``val`` … that hold class folders themselves are splits; the classes are
    those of all splits together. Images lie anywhere inside their class folder; hidden ones are left out.
    The samples are in an order in which the classes take turns (:func:`assay.data.selection.interleave`), so that every
    prefix, as taken by ``reading.limit``, is a spread over the classes; an id is the place in the sorted listing.

    Raises :class:`DataError` for a folder without images, for images outside of class folders, and for class
    folders without any.
    """
    parts = find_parts(root)
    names = sorted({label for classes in parts.values() for label in classes})
    split, classes = choose_split(parts, wanted=reading.split, where=str(root))
    for label in names:
        if not any(part.get(label) for part in parts.values()):
            raise DataError(str(root / label), expected="at least one picture", got="a class folder without any")
    if len(names) < 2:
        raise DataError(str(root), expected="at least two class folders", got=f"only {names[0]!r}")
    files = [(label, file) for label in names for file in classes.get(label, [])]
    if not files:
        raise DataError(f"{root} ({split})", expected="pictures in class folders", got="none")
    numbers = np.array([names.index(label) for label, _ in files])
    order = interleave(numbers)[: reading.limit]
    pictures = (Encoded(_short(files[place][1], root), files[place][1]) for place in order.tolist())
    decoded = decode_pictures(pictures, count=len(order), reading=reading, where=str(root))
    ids = order[decoded.indices.numpy()]
    filenames = tuple(_short(files[place][1], root) for place in ids.tolist())
    labels, places = torch.from_numpy(numbers[ids]), torch.from_numpy(ids)
    return ImageDataset(decoded.images, labels, tuple(names), name, split, places, filenames, decoded.skipped)


def find_parts(root: Path) -> dict[str, Classes]:
    """The splits of a folder, each with its classes; ``all`` for a folder that has none."""
    folders = _subfolders(root)
    parts = {}
    for folder in folders:
        split = split_of(folder.name)
        # A class may be called "train" too: only a folder of folders is a split.
        if split is not None and split not in parts and _subfolders(folder):
            parts[split] = {inner.name: _pictures(inner) for inner in _subfolders(folder)}
    if parts:
        return parts
    if not folders:
        loose = sum(path.suffix.lower() in SUFFIXES for path in root.iterdir())
        got = f"{loose} pictures that lie in no class folder" if loose else "no class folder and no known data file"
        raise DataError(str(root), expected="class folders with pictures, such as cat/ and dog/", got=got)
    classes = {folder.name: _pictures(folder) for folder in folders}
    if not any(classes.values()):
        listed = ", ".join(sorted(classes)[:5])
        raise DataError(str(root), expected="pictures in class folders", got=f"no picture in {listed}")
    return {"all": classes}


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not _is_hidden(entry.name))


def _pictures(folder: Path) -> list[Path]:
    """Every image inside, at any depth, in sorted order; links to folders are not followed in circles."""
    pictures: list[Path] = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        shown = (Path(where, file) for file in sorted(files) if not _is_hidden(file))
        pictures += [file for file in shown if file.suffix.lower() in SUFFIXES]
    return pictures


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _short(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()
