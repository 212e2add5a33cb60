"""A folder of class folders: ``root/cat/1.png``, or ``root/train/cat/1.png`` and ``root/test/cat/2.png``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from assay.data.dataset import ImageDataset
from assay.data.decoding import is_picture
from assay.data.labels import in_order, note_absent
from assay.data.pictures import Encoded, decode_pictures
from assay.data.reading import LeftOut, Reading, choose_split, is_hidden, listing, split_of
from assay.data.selection import interleave
from assay.errors import DataError

Classes = dict[str, list[Path]]  # class name -> its images, sorted


def load_folder(root: Path, *, name: str, reading: Reading) -> ImageDataset:
    """Read class folders; classes are numbered in the sorted order of the folder names, as torchvision does.

    Where all names are numbers they are sorted as such, and that is noted where it makes a difference.

    Sub-folders named ``train``, ``test``, ``val`` … that hold class folders themselves are splits; the classes are
    those of all splits together. Images lie anywhere inside their class folder.
    The samples are in an order in which the classes take turns (:func:`assay.data.selection.interleave`), so that every
    prefix, as taken by ``reading.limit``, is a spread over the classes; an id is the place in the sorted listing.

    What is a picture is told by the ending of a file's name, and by its content where the ending is another one. What
    is left out is noted: hidden files, other files, links to folders, pictures outside of the class folders.

    Raises :class:`DataError` for a folder without images, for images outside of class folders, and for class
    folders without any.
    """
    left_out = LeftOut()
    parts = find_parts(root, left_out)
    if reading.split not in parts and "all" not in parts:
        _refuse_bare_split(root, reading.split)
    names = in_order(label for classes in parts.values() for label in classes)
    split, classes = choose_split(parts, wanted=reading.split, where=str(root))
    for label in names:
        if not any(part.get(label) for part in parts.values()):
            raise DataError(str(root / label), expected="at least one picture", got="a class folder without any")
    files = [(label, file) for label in names for file in classes.get(label, [])]
    if len(names) < 2:
        inside = sorted({file.relative_to(root).parts[-2] for _, file in files} - {names[0]})
        hint = f"; are the folders inside of it ({listing(inside)}) the classes?" if len(inside) > 1 else ""
        if hint and (place := _inner_set(root)):
            hint += f" Then name {place}"
        raise DataError(str(root), expected="at least two class folders", got=f"only {names[0]!r}{hint}")
    if not files:
        raise DataError(f"{root} ({split})", expected="pictures in class folders", got="none")
    numbers = np.array([names.index(label) for label, _ in files])
    order = interleave(numbers)[: reading.limit]
    limited = order
    order = order if reading.divide is None else order[reading.divide(order, numbers[order], scattered=True)]
    order = order if reading.only is None else order[np.isin(order, list(reading.only))]

    def pictures(places: NDArray[np.int64]) -> Iterator[Encoded]:
        return (Encoded(_short(files[place][1], root), files[place][1]) for place in places.tolist())

    decoded = decode_pictures(
        pictures(order), count=len(order), reading=reading, where=name, everything=partial(pictures, limited)
    )
    ids = order[decoded.indices.numpy()]
    filenames = tuple(_short(files[place][1], root) for place in ids.tolist())
    labels, places = torch.from_numpy(numbers[ids]), torch.from_numpy(ids)
    nested = [_short(file.parent, root) for label, file in files if file.parent.name != label]
    notes = left_out.notes(name)
    if nested:
        of = f"of {len(files):,} pictures lie in folders inside of the class folders, which are no classes of their own"
        notes += [f"{name}: {len(nested):,} {of}: {listing(list(dict.fromkeys(nested)))}"]
    if names != tuple(sorted(names)):
        notes.append(f"{name}: the class folders are numbers, in the order {listing(names)}, not that of text")
    notes += [*note_absent(numbers, names, where=f"{name} ({split})"), *decoded.notes]
    return ImageDataset(
        decoded.images, labels, names, name, split, places, filenames, decoded.skipped, tuple(notes)
    )  # fmt: skip


def find_parts(root: Path, left_out: LeftOut) -> dict[str, Classes]:
    """The splits of a folder, each with its classes; ``all`` for a folder that has none."""
    folders = _subfolders(root)
    splits: dict[str, Path] = {}
    for folder in folders:
        split = split_of(folder.name)
        # A class may be called "train" too: only a folder of folders is a split.
        if split is not None and split not in splits and _subfolders(folder):
            splits[split] = folder
    if splits:
        _note_others(root, list(splits.values()), "outside of the splits", root=root, left_out=left_out)
        return {split: _read_classes(folder, root=root, left_out=left_out) for split, folder in splits.items()}
    if not folders:
        loose = sum(is_picture(path) for path in root.iterdir() if path.is_file() and not is_hidden(path.name))
        got = f"{loose} pictures that lie in no class folder" if loose else "no class folder and no known data file"
        raise DataError(str(root), expected="class folders with pictures, such as cat/ and dog/", got=got)
    if all(split_of(folder.name) for folder in folders):
        names = " and ".join(f"{folder.name}/" for folder in folders)
        expected = f"class folders in {names}, or a table of paths and labels beside the pictures"
        raise DataError(str(root), expected=expected, got="pictures that lie in a folder of a split and in no class")
    _refuse_splits_in_classes(folders, root=root)
    classes = _read_classes(root, root=root, left_out=left_out)
    if not any(classes.values()):
        listed = ", ".join(sorted(classes)[:5])
        raise DataError(str(root), expected="pictures in class folders", got=f"no picture in {listed}")
    return {"all": classes}


def _refuse_bare_split(root: Path, split: str) -> None:
    """Raise :class:`DataError` where the folder of a split has pictures and no class folders."""
    for folder in _subfolders(root):
        if split_of(folder.name) == split and _holds_picture(folder):
            got = "pictures that lie in no class folder"
            raise DataError(str(folder), expected="class folders with pictures, as in the other splits", got=got)


def _refuse_splits_in_classes(folders: list[Path], *, root: Path) -> None:
    """Raise :class:`DataError` for ``cat/train/`` and ``cat/test/``, which would be one set of both."""
    for folder in folders:
        inner = {split: path for path in _subfolders(folder) if (split := split_of(path.name))}
        if len(inner) > 1 and (place := _inner_set(root)):
            got = f"only {folder.name!r}, which holds them: name {place}"
            raise DataError(str(root), expected="class folders, or folders of splits with class folders", got=got)
        if len(inner) > 1:
            expected = "the folders of splits outside of the class folders, such as " + " and ".join(
                f"{path.name}/{folder.name}/" for path in inner.values()
            )
            raise DataError(
                str(root), expected=expected, got=" and ".join(f"{_short(path, root)}/" for path in inner.values())
            )


def _inner_set(root: Path) -> Path | None:
    """The folder below that holds class folders, where nothing but a chain of single folders leads there."""
    folders = _subfolders(root)
    while len(folders) == 1:
        if holds_class_folders(folders[0]):
            return folders[0]
        folders = _subfolders(folders[0])
    return None


def holds_class_folders(root: Path) -> bool:
    """Whether a folder, or a split in it, holds two folders with pictures that are not called as splits are."""
    folders = _subfolders(root)
    splits = [inner for folder in folders if split_of(folder.name) and (inner := _subfolders(folder))]
    return any(_are_classes(inner) for inner in (splits or [folders]))


def _are_classes(folders: list[Path]) -> bool:
    with_pictures = (folder for folder in folders if _holds_picture(folder))
    return len(list(islice(with_pictures, 2))) == 2 and not all(split_of(folder.name) for folder in folders)


def _holds_picture(folder: Path) -> bool:
    return any(is_picture(Path(place, file)) for place, _, files in os.walk(folder) for file in files)


def _read_classes(folder: Path, *, root: Path, left_out: LeftOut) -> Classes:
    folders = _subfolders(folder)
    _note_others(folder, folders, "outside of the class folders", root=root, left_out=left_out)
    return {inner.name: _pictures(inner, root=root, left_out=left_out) for inner in folders}


def _note_others(folder: Path, used: list[Path], reason: str, *, root: Path, left_out: LeftOut) -> None:
    for path in sorted(folder.iterdir()):
        if path not in used:
            left_out.add("hidden" if is_hidden(path.name) else reason, _short(path, root))


def _subfolders(folder: Path) -> list[Path]:
    """The folders inside that are not hidden; links to a folder around it are none, which would go in circles."""
    with os.scandir(folder) as entries:
        inner = sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    return [path for path in inner if not (path.is_symlink() and folder.resolve().is_relative_to(path.resolve()))]


def _pictures(folder: Path, *, root: Path, left_out: LeftOut) -> list[Path]:
    """Every image inside, at any depth: the files of a folder in sorted order, then its folders."""
    pictures: list[Path] = []
    folders: list[Path] = []
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = Path(entry.path)
        if is_hidden(entry.name):
            left_out.add("hidden", _short(path, root))
        elif entry.is_dir(follow_symlinks=False):
            folders.append(path)
        elif entry.is_dir():
            left_out.add("links to folders", _short(path, root))
        elif (entry.is_file() or (entry.is_symlink() and not path.exists())) and is_picture(path):
            pictures.append(path)
        else:
            left_out.add("without a picture", _short(path, root))
    return pictures + [file for inner in folders for file in _pictures(inner, root=root, left_out=left_out)]


def _short(file: Path, root: Path) -> str:
    """The path of ``file`` below ``root``; taken as text, as pathlib takes longer than decoding a small picture."""
    whole, start = str(file), f"{root}{os.sep}"
    if not whole.startswith(start):
        return file.relative_to(root).as_posix()
    return whole[len(start) :].replace(os.sep, "/")
