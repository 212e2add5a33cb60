"""From a path, a list of paths or a pattern to the reader that understands the files there."""

from __future__ import annotations

import difflib
import glob
import os
import re
from dataclasses import replace
from pathlib import Path

from assay.data.dataset import ImageDataset
from assay.data.pictures import SUFFIXES
from assay.data.reading import Reading, choose_split, group_by_split
from assay.data.sources.cifar import is_cifar_name, load_cifar
from assay.data.sources.folder import load_folder
from assay.data.sources.idx import is_idx_name, load_idx
from assay.data.sources.npz import load_npz
from assay.data.sources.parquet import load_parquet
from assay.data.sources.webdataset import expand_braces, load_webdataset
from assay.errors import DataError

FORMATS = "a folder of class folders, *.parquet, *.npz, IDX files, or WebDataset shards x-{000..099}.tar"
DEPTH = 3  # folders below the one given in which data files are looked for
PRIORITY = ("parquet", "cifar", "idx", "webdataset", "npz")


def load_path(spec: str, *, reading: Reading) -> ImageDataset:
    """The set that a path speaks of: a folder, a file, several files with commas between, a glob or a brace pattern.

    In a folder the files whose names speak of the wanted split are taken. Files that are named one by one, and all are
    of one split, are taken as they are. The set is called by the last part of the path.
    """
    paths = find_paths(spec)
    name = paths[0].resolve().name if len(paths) == 1 else Path(spec.split(",", maxsplit=1)[0]).name
    if len(paths) == 1 and paths[0].is_dir():
        return _load_found(paths[0], name=name, reading=reading)
    kinds = {kind_of_file(path.name) for path in paths if path.is_file()}
    if len(kinds) != 1 or not all(path.is_file() for path in paths):
        raise DataError(spec, expected="one folder, or files of one format", got=f"{len(paths)} paths of several kinds")
    kind = kinds.pop()
    if kind == "image":
        raise DataError(spec, expected=FORMATS, got="a single picture, without a label")
    if kind is None:
        raise DataError(spec, expected=FORMATS, got=f"a file of another kind ({paths[0].suffix or 'no ending'})")
    if kind in {"idx", "npz", "cifar"} and len(paths) > 1:
        parents = {path.parent for path in paths}
        if kind != "idx" or len(parents) > 1:
            raise DataError(spec, expected=f"one {kind} file", got=f"{len(paths)} files")
        return load_idx(parents.pop(), name=name, reading=reading)
    return _load_files(kind, paths, root=paths[0].parent, name=name, reading=reading)


def find_paths(spec: str) -> list[Path]:
    """The existing paths that ``spec`` speaks of, at least one; raises :class:`DataError` with a near match."""
    whole = Path(spec).expanduser()
    if whole.exists():
        return [whole]
    parts = [part for text in _split_commas(spec) for part in expand_braces(text)]
    found: list[Path] = []
    for part in parts:
        path = Path(part.strip()).expanduser()
        matches = sorted(glob.glob(str(path), recursive=True)) if re.search(r"[*?\[]", part) else []  # noqa: PTH207
        if not matches and not path.exists():
            raise DataError(part, expected="a file or a folder", got=f"nothing there{_near_match(path)}")
        found += [Path(match) for match in matches] or [path]
    return found


def _split_commas(spec: str) -> list[str]:
    """At the commas outside of braces."""
    return [part for part in re.split(r",(?![^{}]*\})", spec) if part.strip()]


def _near_match(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)  # noqa: PTH208  # names are wanted
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def kind_of_file(name: str) -> str | None:
    """The format that a file's name speaks of; None for a file that is no data."""
    lower = name.lower()
    if is_cifar_name(name):
        return "cifar"
    if is_idx_name(name):
        return "idx"
    if lower.endswith((".parquet", ".pq")):
        return "parquet"
    if lower.endswith(".npz"):
        return "npz"
    if lower.endswith((".tar", ".tar.gz", ".tgz")):
        return "webdataset"
    return "image" if Path(lower).suffix in SUFFIXES else None


def _load_found(folder: Path, *, name: str, reading: Reading) -> ImageDataset:
    """Whatever the folder holds."""
    kind, place = _find_kind(folder, depth=DEPTH) or ("folder", folder)
    if kind == "folder":
        return load_folder(folder, name=name, reading=reading)
    if kind in {"idx", "cifar"}:
        return _load_files(kind, [place], root=folder, name=name, reading=reading)
    files = sorted(file for file in folder.rglob("*") if kind_of_file(file.name) == kind and file.is_file())
    groups = group_by_split(files, root=folder)
    split, chosen = choose_split(groups, wanted=reading.split, where=str(folder))
    others = [file for other, more in groups.items() if other != split for file in more]
    return _load_files(kind, chosen, root=folder, name=name, reading=reading, others=others)


def _find_kind(folder: Path, *, depth: int) -> tuple[str, Path] | None:
    """The format of the first data files from the top down, and the folder (or CIFAR archive) they lie in."""
    kinds: dict[str, Path] = {}
    inner: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inner.append(Path(entry.path))
            elif kind := kind_of_file(entry.name):
                kinds.setdefault(kind, Path(entry.path))
            if "image" in kinds and depth < DEPTH:
                # A picture below the top: these are class folders, and there may be very many files.
                return "folder", folder
    for kind in PRIORITY:
        if kind in kinds:
            is_archive = kind == "cifar" and kinds[kind].suffix == ".gz"
            return kind, kinds[kind] if is_archive else folder
    below = [_find_kind(path, depth=depth - 1) for path in sorted(inner)] if depth else []
    found = [place for place in below if place is not None]
    return next((place for place in found if place[0] != "folder"), found[0] if found else None)


def _load_files(
    kind: str, files: list[Path], *, root: Path, name: str, reading: Reading, others: list[Path] | None = None
) -> ImageDataset:
    if kind == "idx":
        return load_idx(files[0], name=name, reading=reading)
    if kind == "cifar":
        place = files[0] if files[0].is_dir() or files[0].suffix == ".gz" else files[0].parent
        return load_cifar(place, name=name, reading=reading)
    groups = group_by_split(files, root=root)
    split, chosen = (
        next(iter(groups.items())) if len(groups) == 1 else choose_split(groups, wanted=reading.split, where=name)
    )
    if kind == "parquet":
        return load_parquet(chosen, name=name, split=split, reading=reading, others=others or [])
    if kind == "webdataset":
        return load_webdataset(chosen, name=name, split=split, reading=reading)
    if len(chosen) > 1:
        raise DataError(name, expected="one .npz file", got=", ".join(file.name for file in chosen))
    dataset = load_npz(chosen[0], name=name, reading=reading)
    return replace(dataset, split=split) if dataset.split == "all" else dataset
