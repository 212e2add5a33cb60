"""The checks of a folder: those that can be read, and one line for each file that cannot."""

from __future__ import annotations

from pathlib import Path

from assay.errors import InputError
from assay.records.checkup import Checkup
from assay.report.reading import read_checkup


def read_folder(folder: Path) -> tuple[dict[str, Checkup], list[str]]:
    """Every ``check.json`` below ``folder`` and every ``*.json`` in it, by its place in the folder; and what failed.

    Raises :class:`InputError` where ``folder`` is none.
    """
    if not folder.is_dir():
        raise InputError(str(folder), expected="a folder of checks", got="a file" if folder.exists() else "nothing")
    found: dict[str, Checkup] = {}
    broken: list[str] = []
    for path in sorted({*folder.rglob("check.json"), *folder.glob("*.json")}):
        name = path.relative_to(folder).as_posix()
        try:
            found[name] = read_checkup(path)
        except InputError as error:
            where = error.where.removeprefix(str(path)).lstrip(": ")
            broken.append(f"{name}: " + (f"{where}: " if where else "") + f"expected {error.expected}, got {error.got}")
    return found, broken
