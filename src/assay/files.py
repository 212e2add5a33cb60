"""Writing files so that a reader, or a power cut, never sees half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import OutputError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary neighbour, flush it to disk, and rename it over ``path``.

    Raises :class:`OutputError` when the folder is missing, read-only or full; nothing is left behind then.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:  # Ctrl-C included; after the rename there is nothing left to remove
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in ``folder``; see :func:`write_atomically`."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> Path:
    """Create the folder and prove that it can be written to, before any work is done for it.

    Raises :class:`OutputError` when it cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{secrets.token_hex(4)}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{path}: not a folder that can be written to ({error.strerror or error})") from None
    return path


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep every other process out of ``folder`` for as long as this one works there.

    The lock is on the open folder itself, so it leaves no file behind and ends with the process, however that ends.
    What a killed process left half-written there is removed.
    Systems without ``flock`` (Windows) take no lock. Raises :class:`OutputError` when another process is at work.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{folder}: another process is at work in this folder; wait for it, or take another"
            ) from None
        remove_leftovers(folder)  # whoever left them is dead, or would hold the lock
        yield
    finally:
        os.close(handle)
