"""Opening ``check.json`` and its like: a document, or one line saying what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from assay.arguments import checked
from assay.errors import InputError
from assay.records.base import Record
from assay.records.checkup import SCHEMA_VERSION, Checkup
from assay.records.finding import BASELINE_VERSION, Baseline
from assay.wording import inert

M = TypeVar("M", bound=Record)


@checked
def read_checkup(path: Path | str) -> Checkup:
    """Read a ``check.json``.

    Args:
        path: the file that ``assay check`` wrote, or ``Checkup.model_dump_json``.

    Returns:
        The checkup that was written.

    Raises:
        InputError: the file is missing, is not JSON, is something else than a checkup, was written by a newer assay, or
            holds a field that does not fit; the message names the field.

    Example:
        >>> import assay, pathlib, tempfile
        >>> from assay.records.checkup import Subject
        >>> from assay.runtime import describe_environment
        >>> checkup = assay.Checkup(
        ...     subject=Subject(model="mlp", weights=None, data="digits", split="test", n=32, available=32, classes=(),
        ...                     image_shape=(1, 8, 8)),
        ...     budget="quick", seed=0, started="2026-01-01", seconds=0.0, environment=describe_environment("cpu"),
        ...     stages=(), records=(), verdicts=assay.judge([]),
        ... )  # or what assay.run_check returned
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "check.json"
        >>> written = path.write_text(checkup.model_dump_json())
        >>> assay.read_checkup(path).model_dump_json() == checkup.model_dump_json()
        True
    """
    return _read(Path(path), Checkup, kind="checkup", version=SCHEMA_VERSION, file="a check.json")


def read_baseline(path: Path) -> Baseline:
    """The accepted findings stored in ``path``. Raises :class:`InputError` as :func:`read_checkup` does."""
    return _read(path, Baseline, kind="baseline", version=BASELINE_VERSION, file="a file of accepted findings")


def _read(path: Path, model: type[M], *, kind: str, version: int, file: str) -> M:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(str(path), expected=file, got=(error.strerror or "an error").lower()) from None
    except UnicodeDecodeError:
        raise InputError(str(path), expected="JSON text", got="bytes that are not UTF-8") from None
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(str(path), expected="JSON", got=f"{error}" if text.strip() else "an empty file") from None
    except RecursionError:
        raise InputError(str(path), expected=f"a {kind}", got="JSON nested too deeply") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        got = f"a JSON {'list' if isinstance(document, list) else type(document).__name__}"
        if isinstance(document, dict):
            got = _brief(document["kind"]) if "kind" in document else "an object without a kind"
        raise InputError(f"{path}: kind", expected=kind, got=got)
    written = document.get("schema_version")
    if written != version:
        newer = isinstance(written, int) and written > version
        advice = " (written by a newer assay: upgrade to read it)" if newer else ""
        raise InputError(f"{path}: schema_version", expected=str(version), got=f"{written!r}{advice}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        got = "nothing" if first["type"] == "missing" else _brief(first["input"])
        raise InputError(f"{path}: {field}", expected=expected, got=f"{got}{more}") from None


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def read_folder(folder: Path) -> tuple[dict[str, Checkup], list[str]]:
    """Every ``check.json`` below ``folder`` and every ``*.json`` in it, by its place in the folder; and what failed.

    Raises :class:`InputError` where ``folder`` is none.
    """
    if not folder.is_dir():
        raise InputError(str(folder), expected="a folder of checks", got="a file" if folder.exists() else "nothing")
    checkups: dict[str, Checkup] = {}
    broken: list[str] = []
    for path in sorted({*folder.rglob("check.json"), *folder.glob("*.json")}):
        name = path.relative_to(folder).as_posix()
        try:
            checkups[name] = read_checkup(path)
        except InputError as error:
            where = error.where.removeprefix(str(path)).lstrip(": ")
            broken.append(f"{name}: " + (f"{where}: " if where else "") + f"expected {error.expected}, got {error.got}")
    return checkups, broken


def made_inert(record: M) -> M:
    """The same record with :func:`~assay.wording.inert` applied to every string in it."""
    return type(record).model_validate(_inert(record.model_dump()))


def _inert(value: object) -> object:
    if isinstance(value, str):
        return inert(value, keep="")
    if isinstance(value, dict):
        return {key: _inert(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_inert(each) for each in value)
    return value
