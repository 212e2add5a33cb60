"""Opening ``check.json``: a document, or one line saying what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from assay.errors import InputError
from assay.records.checkup import SCHEMA_VERSION, Checkup


def read_checkup(path: Path) -> Checkup:
    """The checkup stored in ``path``.

    Raises :class:`InputError` when the file is missing, is not JSON, is something else than a checkup, was written by
    a newer assay, or holds a field that does not fit; the message names the field.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(str(path), expected="a check.json", got=(error.strerror or "an error").lower()) from None
    except UnicodeDecodeError:
        raise InputError(str(path), expected="JSON text", got="bytes that are not UTF-8") from None
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(str(path), expected="JSON", got=f"{error}" if text.strip() else "an empty file") from None
    except RecursionError:
        raise InputError(str(path), expected="a checkup", got="JSON nested too deeply") from None
    if not isinstance(document, dict) or document.get("kind") != "checkup":
        raise InputError(f"{path}: kind", expected="checkup", got=_kind_of(document))
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        advice = " (written by a newer assay: upgrade to read it)" if newer else ""
        raise InputError(f"{path}: schema_version", expected=str(SCHEMA_VERSION), got=f"{version!r}{advice}")
    try:
        return Checkup.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        got = "nothing" if first["type"] == "missing" else _brief(first["input"])
        raise InputError(f"{path}: {field}", expected=expected, got=f"{got}{more}") from None


def _kind_of(document: object) -> str:
    if isinstance(document, dict):
        return _brief(document["kind"]) if "kind" in document else "an object without a kind"
    return f"a JSON {'list' if isinstance(document, list) else type(document).__name__}"


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
