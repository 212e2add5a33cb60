"""Folders of models as the Hugging Face hub has them, local or fetched by the hub's own client into its cache."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assay.errors import DependencyError, ModelError, one_line

NAME = re.compile(r"(?P<repository>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")


def fetch_model(name: str, *, files: Sequence[str], where: str) -> Path:
    """The folder with those ``files`` (patterns) of the model ``OWNER/NAME``, or ``OWNER/NAME@REVISION``.

    What the cache has is not fetched again. Raises :class:`ModelError` where the hub or the model cannot be reached,
    :class:`DependencyError` without ``huggingface-hub``.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ModelError(where, expected="a folder, or OWNER/NAME or OWNER/NAME@REVISION on the hub", got=repr(name))
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DependencyError("huggingface-hub", extra="hub", purpose=f"fetching {where}") from None
    try:
        with _quiet():
            repository, revision = match.group("repository", "revision")
            return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the client raises its own, the HTTP library's and the system's errors
        expected = f"a folder {name}, or a model of that name on the hub"
        reason = f"{type(error).__name__}: {one_line(error, limit=160)}"
        raise ModelError(where, expected=expected, got=f"neither ({reason})") from None


def read_json(path: Path, *, where: str) -> dict[str, Any]:
    """The JSON object in a model's folder. Raises :class:`ModelError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        expected = f"a {path.name} in the folder, as save_pretrained writes it"
        raise ModelError(where, expected=expected, got=error.strerror or error) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: {path.name}", expected="JSON", got=one_line(error)) from None
    if not isinstance(content, dict):
        raise ModelError(f"{where}: {path.name}", expected="a JSON object", got=type(content).__name__)
    return content


def require_safetensors(folder: Path, *names: str, where: str) -> None:
    """Raise :class:`ModelError` where no file of these ``names`` is in a model's folder."""
    if any((folder / name).is_file() for name in names):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    got = f"{pickles[0]}, a pickle, which could run code: save the model as safetensors" if pickles else "none"
    raise ModelError(where, expected=f"weights in {names[0]}", got=got)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings on standard error."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger, shown = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            enable_progress_bars()
