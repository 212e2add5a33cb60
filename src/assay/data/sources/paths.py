"""From a path, a list of paths or a pattern to the reader of the files there."""

from __future__ import annotations

import difflib
import glob
import os
import re
from dataclasses import replace
from pathlib import Path

from assay.data.dataset import ImageDataset
from assay.data.reading import LeftOut, Reading, choose_split, group_by_split, is_hidden, listing
from assay.data.sources import (
    CLASS_FOLDERS,
    FILE_FORMATS,
    MANIFEST,
    NAMES,
    SOURCES,
    FileFormat,
    format_of,
    import_function,
)
from assay.data.sources.folder import holds_class_folders
from assay.data.sources.manifest import find_tables, names_pictures
from assay.errors import DataError

DEPTH = 3  # folders below the one given in which data files are looked for
FORMATS = SOURCES[-1].spelling


def load_path(spec: str, *, reading: Reading) -> ImageDataset:
    """The set at a folder, a file, several files with commas between, a glob or a brace pattern.

    In a folder the files whose names contain the wanted split are taken. Files that are named one by one, and all are
    of one split, are taken as they are. The set is called by the last part of the path.
    """
    _check_known(spec)
    paths = find_paths(spec)
    name = paths[0].resolve().name if len(paths) == 1 else Path(spec.split(",", maxsplit=1)[0]).name
    if len(paths) == 1 and paths[0].is_dir():
        return _load_folder(paths[0], name=name, reading=reading)
    formats = {format_of(path.name) for path in paths if path.is_file()}
    if len(formats) != 1 or not all(path.is_file() for path in paths):
        raise DataError(spec, expected="one folder, or files of one format", got=f"{len(paths)} paths of several kinds")
    file_format = formats.pop()
    if file_format is None:
        raise DataError(spec, expected=FORMATS, got=f"a file of another kind ({paths[0].suffix or 'no ending'})")
    if file_format is CLASS_FOLDERS:
        raise DataError(spec, expected=FORMATS, got="a single picture, without a label")
    if file_format.takes_folder:
        if len({path.parent for path in paths}) > 1:
            got = f"{len(paths)} files in several"
            raise DataError(spec, expected=f"{file_format.description} of one folder", got=got)
        place = paths[0] if len(paths) == 1 else paths[0].parent
        return _read(file_format, place, name=name, reading=reading)
    groups = group_by_split(paths, root=paths[0].parent)
    only = next(iter(groups.items())) if len(groups) == 1 else None
    split, files = only or choose_split(groups, wanted=reading.split, where=name)
    others = [file for other, more in groups.items() if other != split for file in more]
    return _read(file_format, files, name=name, split=split, reading=reading, others=others)


def _check_known(spec: str) -> None:
    """Raise, with every name there is, for a word that is neither a path nor a name."""
    expected = ", ".join(source.spelling for source in SOURCES)
    if not spec.strip():
        raise DataError("data", expected=expected, got="an empty name")
    if re.search(r"[/\\.*?\[{,~]", spec) or Path(spec).exists():
        return
    near = difflib.get_close_matches(spec.lower(), [*NAMES, *(entry.name for entry in Path().iterdir())], n=1)
    raise DataError("data", expected=expected, got=repr(spec) + (f"; did you mean {near[0]!r}?" if near else ""))


def find_paths(spec: str) -> list[Path]:
    """The existing paths that ``spec`` stands for, at least one; raises :class:`DataError` with a near match."""
    path = Path(spec).expanduser()
    if path.exists():
        return [path]
    at_commas = [part for part in re.split(r",(?![^{}]*\})", spec) if part.strip()]  # not at those inside of braces
    paths: list[Path] = []
    for part in (expanded for text in at_commas for expanded in expand_braces(text)):
        path = Path(part.strip()).expanduser()
        matches = sorted(glob.glob(str(path), recursive=True)) if re.search(r"[*?\[]", part) else []  # noqa: PTH207
        if not matches and not path.exists():
            raise DataError(part, expected="a file or a folder", got=f"nothing there{_near_match(path)}")
        paths += [Path(match) for match in matches] or [path]
    return paths


def expand_braces(pattern: str) -> list[str]:
    """``x-{000..002}.tar`` to x-000.tar, x-001.tar, x-002.tar, and ``{a,b}.tar`` to a.tar, b.tar."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    inside = match[1]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = numbers.groups()
        if not int(first) <= int(last) < int(first) + 100_000:
            raise DataError(pattern, expected="a range that rises by less than 100,000", got="{" + inside + "}")
        parts = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        parts = inside.split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [result for part in parts for result in expand_braces(head + part + tail)]


def _near_match(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)  # noqa: PTH208  # names are wanted
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def _load_folder(folder: Path, *, name: str, reading: Reading) -> ImageDataset:
    file_format, place = _find_format(folder, depth=DEPTH) or (CLASS_FOLDERS, folder)
    if file_format is CLASS_FOLDERS:
        tables = find_tables(folder)
        manifests = [table for table in tables if names_pictures(table, reading=reading)]
        if tables and not holds_class_folders(folder):  # of tables that name no pictures the first one is refused
            return _read_manifests(manifests or tables[:1], folder, name=name, reading=reading)
        dataset = _read(file_format, folder, name=name, reading=reading)
        unread = [f"{name}: the class folders are read, and not {file.relative_to(folder).as_posix()}, which names "
                  "pictures and labels as well: name it as the data to use it" for file in manifests]  # fmt: skip
        return replace(dataset, notes=(*dataset.notes, *unread))
    left_out = LeftOut()
    files = []
    for file in sorted(path for path in folder.rglob("*") if format_of(path.name) and path.is_file()):
        short = file.relative_to(folder)
        if any(map(is_hidden, short.parts)):
            left_out.add("hidden", short.as_posix())
        elif format_of(file.name) is file_format:
            files.append(file)
        else:
            left_out.add("of another format", short.as_posix())
    if file_format.takes_folder:
        dataset = _read(file_format, place, name=name, reading=reading)
    else:
        groups = group_by_split(files, root=folder)
        split, chosen = choose_split(groups, wanted=reading.split, where=str(folder))
        for file in groups["all"] if split != "all" and "all" in groups else ():
            left_out.add("of no split", file.relative_to(folder).as_posix())
        others = [file for other, more in groups.items() if other != split for file in more]
        dataset = _read(file_format, chosen, name=name, split=split, reading=reading, others=others)
    return replace(dataset, notes=(*left_out.notes(name), *dataset.notes))


def _read_manifests(manifests: list[Path], folder: Path, *, name: str, reading: Reading) -> ImageDataset:
    """The wanted split of tables in a folder, one a split."""
    groups = group_by_split(manifests, root=folder)
    split, files = choose_split(groups, wanted=reading.split, where=str(folder))
    if len(files) > 1:
        got = listing([file.relative_to(folder).as_posix() for file in files])
        raise DataError(str(folder), expected="one table of pictures (name the one to use as the data)", got=got)
    others = [file for other, more in groups.items() if other != split for file in more]
    dataset = _read(MANIFEST, files, name=name, split=split, reading=reading, others=others)
    shown = files[0].relative_to(folder).as_posix()
    return replace(dataset, notes=(f"{name}: the pictures are those that {shown} names", *dataset.notes))


def _find_format(folder: Path, *, depth: int) -> tuple[FileFormat, Path] | None:
    """The format of the first data files from the top down, and the folder they lie in."""
    present: set[FileFormat] = set()
    inner: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inner.append(Path(entry.path))
            elif file_format := format_of(entry.name):
                present.add(file_format)
            if CLASS_FOLDERS in present and depth < DEPTH:
                # An image below the top: these are class folders, and there may be very many files.
                return CLASS_FOLDERS, folder
    for file_format in FILE_FORMATS:
        if file_format in present and file_format not in {CLASS_FOLDERS, MANIFEST}:
            return file_format, folder
    below = [_find_format(path, depth=depth - 1) for path in sorted(inner)] if depth else []
    matches = [match for match in below if match is not None]
    return next((match for match in matches if match[0] is not CLASS_FOLDERS), matches[0] if matches else None)


def _read(file_format: FileFormat, place: Path | list[Path], *, reading: Reading, **options: object) -> ImageDataset:
    reading.refuse_unused(file_format.takes, source=file_format.description)
    return import_function(file_format.reader)(place, reading=reading, **options)  # type: ignore[no-any-return]
