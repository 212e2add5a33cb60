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
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold ``path`` for this process alone until the block ends, or the process does, however it dies.

    The file stays: removing it would let a third process lock another file of the same name. Without ``wait``
    :class:`OutputError` is raised when another process holds it. Systems without ``fcntl`` have no such lock.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise OutputError(f"{path.parent}: another run is writing there") from None
        yield
