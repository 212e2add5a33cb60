"""What to read from a source: which split, how much of it, and how many broken images to skip."""

from __future__ import annotations

import codecs
import lzma
import pickle
import re
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field

from assay.data.division import Division
from assay.errors import DataError, UnusedOptionError, one_line
from assay.options import Options
from assay.records.preparation import Preparation

Item = TypeVar("Item")
SplitName = Literal["train", "test", "validation"]

# What decoders and readers of archives raise on damaged files, found by feeding them damaged files.
_BUILT_IN = (OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError)
_ARCHIVES = (struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, pickle.UnpicklingError)
UNREADABLE: tuple[type[Exception], ...] = (*_BUILT_IN, *_ARCHIVES, SyntaxError, MemoryError, tokenize.TokenError)

# The words in the names of files and folders for the part of a data set that they hold.
_SYNONYMS = {"train": "train training", "test": "test testing t10k", "validation": "validation valid val dev eval"}
SPLIT_WORDS = {word: split for split, words in _SYNONYMS.items() for word in words.split()}


# What only tables with named columns have a use of
TABLE_OPTIONS = ("image_column", "label_column", "split_column", "root")


class Reading(Options):
    """How to read a source, whatever it is.

    ``split``      the part to use; a source that has no parts is used entirely
    ``data_dir``   a folder in which published sets are looked for first
    ``limit``      at most this many samples; the rest is never decoded
    ``max_bad``    broken images to skip before giving up
    ``image_size`` when set, the short side is resized to it and the centre square is cut out
    ``prepare``    how pictures are resized and cropped, where no ``image_size`` is set
    ``image_column``, ``label_column``, ``split_column``
                   the names of the columns to use of a table, where the usual names do not tell
    ``root``       the folder that paths in a table start from, in place of the table's own
    ``divide``     when set, takes the ids of the samples within the limit and their labels, and gives the places of
                   those of one shard, which alone are decoded: :class:`assay.data.division.Division`
    ``only``       when set, the samples of these ids alone are decoded, of those within the limit
    """

    split: SplitName = "test"
    data_dir: Path | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    max_bad: Annotated[int, Field(ge=0)] = 0
    image_size: Annotated[int, Field(ge=1)] | None = None
    prepare: Preparation | None = None
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    root: Path | None = None
    divide: Division | None = None
    only: frozenset[int] | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @property
    def preparation(self) -> Preparation | None:
        """How the size of pictures changes; None where they stay as they are."""
        if self.image_size is not None:
            return Preparation.square(self.image_size)
        return self.prepare if self.prepare is not None and self.prepare.is_geometric else None

    def refuse_unused(self, taken: Collection[str], *, source: str) -> None:
        """Raise :class:`UnusedOptionError` for one of :data:`TABLE_OPTIONS` that ``source`` has no use of."""
        for name in TABLE_OPTIONS:
            if getattr(self, name) is not None and name not in taken:
                raise UnusedOptionError(f"--{name.replace('_', '-')}", reason=f"no effect on {source}")


@contextmanager
def readable(where: object, expected: str, *errors: type[Exception]) -> Iterator[None]:
    """Whatever a library raises on damaged bytes (or ``errors``) becomes one :class:`DataError`."""
    try:
        yield
    except (*UNREADABLE, *errors) as error:
        got = "a truncated file" if isinstance(error, EOFError) else one_line(error) or type(error).__name__
        raise DataError(str(where), expected=expected, got=got) from None


def text_encoding(head: bytes) -> str:
    """The encoding of a text that begins with ``head``: as its byte-order mark tells, else UTF-8."""
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # before UTF-16, whose mark begins alike
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    return next((encoding for mark, encoding in marks.items() if head.startswith(mark)), "utf-8-sig")


def decode_text(content: bytes, *, where: str) -> str:
    """Text without its byte-order mark, with plain line ends. Raises :class:`DataError` where it is no text."""
    with readable(where, "text in UTF-8"):
        return content.decode(text_encoding(content)).replace("\r\n", "\n").replace("\r", "\n")


class LeftOut:
    """What a reader leaves out, counted by the reason, with the first names."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self._names.setdefault(reason, []).append(name)

    def notes(self, where: str) -> list[str]:
        """One note, or none where nothing was left out."""
        parts = [f"{len(names):,} {reason} ({listing(names)})" for reason, names in self._names.items()]
        return [f"{where}: left out {'; '.join(parts)}"] if parts else []


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems and programs keep for themselves."""
    return name.startswith(".") or name == "__MACOSX"


def listing(names: Sequence[str], *, most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def split_of(name: str) -> str | None:
    """The split in the name of a file or folder: ``train-00000-of-00005.parquet`` is ``train``; else None."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    splits = (SPLIT_WORDS.get(word) or SPLIT_WORDS.get(word.rstrip("0123456789")) for word in words)
    return next(filter(None, splits), None)


def split_of_path(path: Path, *, root: Path) -> str | None:
    """The split in a file's name, else in that of the nearest folder between it and ``root``."""
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return next(filter(None, map(split_of, reversed(inside.parts))), None)


def group_by_split(paths: list[Path], *, root: Path) -> dict[str, list[Path]]:
    """Files by split, each group in the order of its names; under ``all`` those whose names contain none."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(split_of_path(path, root=root) or "all", []).append(path)
    return groups


def choose_split(parts: Mapping[str, Item], *, wanted: str, where: str) -> tuple[str, Item]:
    """The wanted part of a source, and the name it goes by.

    A source without named parts is ``all``, whatever was wanted. Where ``test`` is wanted and only ``validation`` is
    there, that is taken, under its own name. Anything else that is missing raises :class:`DataError`.
    """
    if wanted in parts:
        return wanted, parts[wanted]
    if wanted == "test" and "validation" in parts:
        return "validation", parts["validation"]
    if set(parts) == {"all"}:
        return "all", parts["all"]
    present = " and ".join(sorted(name for name in parts if name != "all"))
    raise DataError(where, expected=f"a {wanted!r} split", got=f"only {present}" if present else "no split at all")
