from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.errors import InputError
from assay.records.checkup import Checkup
from assay.records.reading import read_checkup


def test_what_was_written_is_read(checkup: Checkup, tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    path.write_text(checkup.model_dump_json())
    assert read_checkup(path).model_dump_json() == checkup.model_dump_json()


def changed(document: dict[str, object], **fields: object) -> str:
    return json.dumps({**document, **fields})


def without(document: dict[str, object], field: str) -> str:
    return json.dumps({name: value for name, value in document.items() if name != field})


CASES: dict[str, tuple[Callable[[dict[str, object]], str], str]] = {
    "empty": (lambda d: "", "expected JSON, got an empty file"),
    "cut off": (lambda d: json.dumps(d)[:500], "expected JSON"),
    "not JSON": (lambda d: "<html>", "expected JSON"),
    "a list": (lambda d: "[]", "kind: expected checkup, got a JSON list"),
    "another object": (lambda d: "{}", "kind: expected checkup, got an object without a kind"),
    "another record": (lambda d: '{"kind": "anatomy"}', "kind: expected checkup, got 'anatomy'"),
    "newer": (lambda d: changed(d, schema_version=2), "schema_version: expected 1, got 2 (written by a newer assay"),
    "versionless": (lambda d: without(d, "schema_version"), "expected 1, got None"),
    "a missing field": (lambda d: without(d, "seed"), "seed: expected Field required, got nothing"),
    "an unknown field": (lambda d: changed(d, extra=1), "extra: expected"),
    "a wrong type": (lambda d: changed(d, seed="x"), "seed: expected"),
    "an unknown kind of record": (lambda d: changed(d, records=[{"kind": "tomorrow"}]), "records.0: expected"),
    "impossible counts": (lambda d: changed(d, stages=[{"name": "x"}]), "stages.0.seconds: expected"),
    "nested too deeply": (lambda d: "[" * 100_000, "expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_broken_document_is_one_line(case: str, checkup: Checkup, tmp_path: Path) -> None:
    make, expected = CASES[case]
    path = tmp_path / "check.json"
    path.write_text(make(json.loads(checkup.model_dump_json())))
    with pytest.raises(InputError) as caught:
        read_checkup(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff\xfe")
    for name, expected in (("missing", "no such file"), ("binary", "not UTF-8"), (".", "directory")):
        with pytest.raises(InputError, match=expected):
            read_checkup(tmp_path / name)
