"""How the command ends when something goes wrong: one line, an exit code that says what kind, never a traceback."""

from __future__ import annotations

import errno
import os
import platform
import sys
import tempfile
import traceback
from contextlib import suppress
from typing import IO, Any, NoReturn

from assay.errors import FAULT, AssayError, OutputError, describe_error

# A place that cannot be written to, and limits of the machine: no fault of ours
_PLACES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENAMETOOLONG}


def fail(error: AssayError) -> NoReturn:
    """Print the error as one line on standard error and end with its exit code."""
    say(" ".join(str(error).split()))
    raise SystemExit(error.exit_code)


def fail_unexpectedly(error: Exception) -> NoReturn:
    """One line, the traceback in a file of the temporary folder, and exit code 70; a full disk is no fault of ours."""
    if isinstance(error, OSError) and error.errno in _PLACES:
        fail(OutputError(f"{error.filename or 'the disk'}: cannot be used ({error.strerror})"))
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="assay-", suffix=".txt", delete=False) as file:
            file.write(f"{_versions()}\n\n{text}")
        where = f"traceback in {file.name}"
    except (OSError, UnicodeError):
        where = "its traceback cannot be written"
    say(f"unexpected {describe_error(error, limit=200)}; {where}")
    raise SystemExit(FAULT)


def say(line: str) -> None:
    """Print a line of ours on standard error."""
    with suppress(OSError, ValueError):  # where nobody listens the exit code is left
        print(f"assay: {line}", file=sys.stderr)


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    def find(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "unknown"

    names = (f"{name} {find(name)}" for name in ("assay", "torch", "numpy"))
    return f"{', '.join(names)}, Python {platform.python_version()}, {platform.system()}"


class Tolerant:
    """A stream that goes on in silence when its reader has gone (``assay … | head``): the work and its exit code stay.

    Any other failure to write is an :class:`OutputError` where ``needed``.
    """

    def __init__(self, stream: IO[str], *, needed: bool = True) -> None:
        self._stream, self._needed = stream, needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still buffered goes there, now and when Python ends
        os.close(nowhere)
        if self._needed and not isinstance(error, BrokenPipeError):
            raise OutputError(f"standard output: cannot be written ({error.strerror or error})") from None
