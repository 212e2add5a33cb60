"""Paths in a table to picture files: below one folder, and nowhere else."""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from assay.data.pictures import Encoded
from assay.data.reading import listing
from assay.errors import DataError

_SPECIAL = ("\\", ":", "//", "/.", "\0")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
ELSEWHERE = "--root names the folder that paths start from"


def _spelled_alike(file: Path) -> str | None:
    """The name of a file in the same folder that differs in case or in how Unicode composes its letters only."""
    if not file.parent.is_dir():
        return None
    wanted = _folded(file.name)
    return next((name for name in sorted(os.listdir(file.parent)) if _folded(name) == wanted), None)  # noqa: PTH208


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class PictureFolder:
    """The folder that the paths of a table start from; ``where`` names their column in messages."""

    def __init__(self, root: Path, *, where: str) -> None:
        self._where = where
        self._root = root.expanduser()
        if not self._root.is_dir():
            raise DataError("--root", expected="a folder", got=f"nothing such at {root}")
        self._real = os.path.realpath(self._root)
        self._shown = self._root if self._root.parts else self._real
        self._checked: dict[str, bool] = {}  # folders, by whether they lie inside of the root

    def locate(self, cell: object, row: int) -> str:
        """The path from the root, with slashes, of what a cell of a row says.

        Raises :class:`DataError` for a cell that is no path, and for a path that leads out of the root.
        """
        place = f"{self._where}[{row}]"
        if not isinstance(cell, str) or not cell:
            raise DataError(place, expected="the path of a picture", got="none" if not cell else f"{cell!r:.60}")
        if cell[0] not in "./" and not any(sign in cell for sign in _SPECIAL):
            return cell  # what nearly all are
        if _URL.match(cell):
            raise DataError(place, expected="the path of a file (nothing is fetched)", got=f"{cell:.80}")
        if "\0" in cell:
            raise DataError(place, expected="the path of a picture", got="a zero byte in it")
        text = cell
        if "\\" in cell and not (self._root / cell).exists():
            text = cell.replace("\\", "/")
        absolute = posixpath.isabs(text) or bool(ntpath.splitdrive(text)[0])
        if absolute:
            inside = next((text[len(root) + 1 :] for root in self._spellings() if text.startswith(f"{root}/")), None)
        else:
            inside = text
        path = "" if inside is None else posixpath.normpath(inside)
        if inside is None or path == ".." or path.startswith("../"):
            raise DataError(place, expected=f"a path inside of {self._shown} ({ELSEWHERE})", got=f"{cell:.80}")
        return path

    def _spellings(self) -> tuple[str, ...]:
        return (os.path.abspath(self._root).rstrip("/"), self._real.rstrip("/"))  # noqa: PTH100 - links stay

    def encoded(self, path: str, row: int, *, name: str | None = None) -> Encoded:
        """The picture at ``path``, as :meth:`locate` gives it. Raises :class:`DataError` for a link out of the root."""
        file = self._root / path
        folder = str(file.parent)
        if folder not in self._checked:
            self._checked[folder] = self._is_inside(os.path.realpath(folder))
        if not self._checked[folder] or (file.is_symlink() and not self._is_inside(os.path.realpath(file))):
            expected = f"a path inside of {self._shown} ({ELSEWHERE})"
            raise DataError(f"{self._where}[{row}]", expected=expected, got=f"a link out of it: {path:.80}")
        return Encoded(name or path, file)

    def _is_inside(self, real: str) -> bool:
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)

    def refuse_missing(self, paths: Sequence[str], *, max_bad: int) -> None:
        """Raise :class:`DataError` where more than ``max_bad`` of the pictures are not there."""
        missing = [path for path in paths if not (self._root / path).exists()]
        if len(missing) > max_bad:
            hint = self._hint(missing[0])
            expected = f"pictures below {self._shown} ({ELSEWHERE}; --max-bad N leaves out up to N)"
            got = f"{len(missing):,} of {len(paths):,} are not there: {listing(missing)}{hint}"
            raise DataError(self._where, expected=expected, got=got)

    def _hint(self, path: str) -> str:
        """Where a picture is instead: below a folder around the root, or under an ending that the table leaves out."""
        for folder in list(Path(self._real).parents)[:3]:
            if (folder / path).is_file():
                return f"; it is there below {folder}"
        file = self._root / path
        if alike := _spelled_alike(file):
            return f"; there is {alike}, which differs in case or in how its letters are composed"
        if not file.suffix and file.parent.is_dir():
            near = next((each.name for each in sorted(file.parent.glob(f"{file.name}.*"))), None)
            return f"; there is {near}: paths need the ending of the file" if near else ""
        inner = sorted(each.name for each in self._root.iterdir() if each.is_dir() and (each / path).is_file())
        return f"; it is there below {self._root / inner[0]}" if inner else ""
