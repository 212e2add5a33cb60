"""Fetching a published file over HTTPS: resumed after an interruption, checked, and renamed only when it is right."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from assay.errors import DataError
from assay.files import locked, make_folder

PIECE = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # connections a call; each one goes on where the last one broke off

Show = Callable[[int], None]  # called with the number of bytes that have arrived


@dataclass(frozen=True)
class RemoteFile:
    """A published file: where it is, how large, and the SHA-256 of its content, which no mirror can change."""

    name: str
    url: str
    size: int
    sha256: str


def fetch(file: RemoteFile, folder: Path, *, attempts: int = ATTEMPTS, timeout: float = TIMEOUT) -> Path:
    """``folder``/``file.name``, downloaded unless it is there; a ``.part`` beside it is taken up where it ended.

    Raises :class:`DataError` when the network fails or the content is not the published one (which is then removed),
    :class:`assay.errors.OutputError` when the folder cannot be written to.
    """
    target = make_folder(folder) / file.name
    part = target.with_name(f"{target.name}.part")
    with locked(part.with_name(f".{part.name}.lock")):
        if target.is_file():
            return target
        resumed = part.is_file() and part.stat().st_size > 0
        _transfer(file, part, attempts=attempts, timeout=timeout)
        got = _digest(part)
        if got != file.sha256 and resumed:
            # The beginning may be left over from another file: once more, from nothing.
            part.unlink()
            _transfer(file, part, attempts=attempts, timeout=timeout)
            got = _digest(part)
        if got != file.sha256:
            part.unlink()
            raise DataError(file.url, expected=f"content with SHA-256 {file.sha256[:16]}…", got=f"{got[:16]}…")
        part.replace(target)
    return target


def _transfer(file: RemoteFile, part: Path, *, attempts: int, timeout: float) -> None:
    problem = "no response"
    with _shown(file) as show:
        for _ in range(attempts):
            present = part.stat().st_size if part.is_file() else 0
            if present == file.size:
                return
            if present > file.size:
                part.unlink()
                present = 0
            try:
                _append(file, part, present=present, timeout=timeout, show=show)
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code} {error.reason}"
                if error.code == 416:
                    part.unlink(missing_ok=True)
                elif error.code < 500:
                    break
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                problem = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
    if part.is_file() and part.stat().st_size == file.size:
        return
    hint = "the file over the network, or already in --data-dir, $ASSAY_DATA or the cache"
    raise DataError(file.url, expected=hint, got=problem)


def _append(file: RemoteFile, part: Path, *, present: int, timeout: float, show: Show) -> None:
    headers = {"User-Agent": "assay", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={present}-"} if present else {}
    request = urllib.request.Request(file.url, headers=headers)  # noqa: S310  # the URL is ours, not the user's
    with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310  # the same
        content_range = response.headers.get("Content-Range", "")
        continues = response.status == 206 and re.match(rf"bytes {present}-", content_range) is not None
        arrived = present if continues else 0
        with part.open("ab" if continues else "wb") as out:
            while arrived <= file.size and (piece := response.read(PIECE)):
                out.write(piece)
                arrived += len(piece)
                show(arrived)
            out.flush()
            os.fsync(out.fileno())
    if arrived < file.size:
        raise http.client.IncompleteRead(b"", file.size - arrived)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _shown(file: RemoteFile) -> Iterator[Show]:
    """A progress bar on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(file.name, total=file.size)
        yield lambda arrived: bars.update(task, completed=arrived)
