"""Which kind of program a file is, by what is in it rather than by its name."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile


def is_exported(spec: str) -> bool:
    """Whether ``spec`` is such a file, by what is in it, or is called like one."""
    return spec.endswith(".pt2") or any(
        name.endswith(("/archive_format", "serialized_exported_program.json")) for name in archived(spec)
    )


def archived(spec: str) -> list[str]:
    """The names of what is in an archive; none where ``spec`` is no archive."""
    try:
        if not spec or not Path(spec).is_file() or not is_zipfile(spec):
            return []
        with ZipFile(spec) as file:
            return file.namelist()
    except (OSError, BadZipFile, ValueError):
        return []


def is_torchscript(spec: str) -> bool:
    """Whether ``spec`` is an archive with code of TorchScript in it, or is called like one."""
    names = archived(spec)
    return spec.endswith((".ts", ".torchscript")) or (
        any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)
    )
