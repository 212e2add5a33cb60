"""Writing files so that a reader, or a power cut, never sees half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


_made: list[Path] = []  # by this process, children before their parents


def remove_empty_folders() -> None:
    """Remove what :func:`make_folder` made and nothing was written to: the work for it failed."""
    while _made:
        with suppress(OSError):
            _made.pop(0).rmdir()


def make_folder(path: Path) -> Path:
    """Create the folder and prove that it can be written to, before any work is done for it.

    Raises :class:`OutputError` when it cannot be.
    """
    _made.extend(folder for folder in (path.absolute(), *path.absolute().parents) if not folder.exists())
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
    """Keep every other process out of ``folder`` for as long as this one works there, however it ends.

    The lock is on the open folder itself and leaves no file behind; what a killed process left half-written there is
    removed. Raises :class:`OutputError` when another process is at work. Windows has no such lock.
    """
    if os.name == "nt":  # folders cannot be opened there
        yield
        return
    with _lock(folder, os.O_RDONLY, wait=False) as ours:
        if not ours:
            raise OutputError(f"{folder}: another process is at work in this folder; wait for it, or take another")
        remove_leftovers(folder)  # whoever left them is dead, or would hold the lock
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for ``path``, then hold it for this process alone until the block ends, or the process does.

    The file stays: removing it would let a third process lock another file of the same name. Windows has no such lock.
    """
    with _lock(path, os.O_RDWR | os.O_CREAT, wait=True):
        yield


@contextmanager
def _lock(path: Path, flags: int, *, wait: bool) -> Iterator[bool]:
    """Open ``path`` and lock it; whether the lock is ours."""
    handle, ours = os.open(path, flags, 0o666), True
    try:
        with suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                ours = False
        yield ours
    finally:
        os.close(handle)
