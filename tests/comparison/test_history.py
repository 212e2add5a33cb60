"""A folder of checks: in the order of the time in them, tested from one to the next, the broken named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assay.cli.main import app
from assay.comparison import trace_history
from assay.errors import InputError
from assay.records.checkup import Checkup
from assay.records.comparison import History
from assay.report.history_page import render_history

Make = Callable[..., Checkup]
GOOD, BAD = [True] * 200, [place % 5 != 0 for place in range(200)]


def test_order_is_that_of_the_time_recorded(make_checkup: Make) -> None:
    checks = {
        "a": make_checkup(GOOD, started="2026-03-01T00:00:00+00:00"),
        "b": make_checkup(BAD, started="2026-01-01T00:00:00"),  # no zone: UTC
        "c": make_checkup(GOOD, started="2026-01-31T23:30:00-05:00"),
        "d": make_checkup(BAD, started="2026-02-01T00:00:00+00:00"),
    }
    history = trace_history(checks, folder="f")
    (track,) = history.tracks
    assert [entry.name for entry in track.entries] == ["b", "d", "c", "a"]
    assert track.entries[2].started == "2026-02-01T04:30:00+00:00"
    assert [[change.change for change in entry.changes] for entry in track.entries] == [
        [],
        ["no change beyond noise"],
        ["better"],
        ["no change beyond noise"],
    ]
    assert history.tests == 3
    assert track.entries[2].changes[0].adjusted == pytest.approx(3 * track.entries[2].changes[0].p)
    assert History.model_validate_json(history.model_dump_json()) == history


def test_data_sets_are_kept_apart(make_checkup: Make) -> None:
    checks = {
        "a": make_checkup(GOOD, started="2026-01-01T00:00:00+00:00"),
        "b": make_checkup(BAD, of="e", started="2026-01-02T00:00:00+00:00"),
        "c": make_checkup(BAD, started="2026-01-03T00:00:00+00:00"),
    }
    history = trace_history(checks, folder="f")
    assert [(track.data, len(track.entries)) for track in history.tracks] == [("d", 2), ("e", 1)]
    assert history.tests == 1
    assert "track-1" in render_history(history)


@pytest.fixture
def folder(make_checkup: Make, tmp_path: Path) -> Path:
    for place, (name, right) in enumerate((("z", GOOD), ("m", BAD), ("a", GOOD))):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "check.json"
        path.write_text(make_checkup(right, started=f"2026-01-0{place + 1}T00:00:00+00:00").model_dump_json())
        os.utime(path, (1e9 - place, 1e9 - place))
    (tmp_path / "late.json").write_text(make_checkup(BAD, started="yesterday").model_dump_json())
    (tmp_path / "other.json").write_text('{"kind": "comparison"}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "zz.json").write_text((tmp_path / "z" / "check.json").read_text())
    return tmp_path


def test_the_command_names_what_it_skips_and_writes_a_page(folder: Path) -> None:
    result = CliRunner().invoke(app, ["history", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    for reason in (
        "broken.json: expected JSON",
        "other.json: kind: expected checkup, got 'comparison'",
        "late.json: started: expected a time, got 'yesterday'",
        "zz.json: the same check as z/check.json",
    ):
        assert f"skipped: {reason}" in said
    assert "Clean accuracy 100 % → 100 % over 3 checks" in said
    assert said.index("2026-01-01") < said.index("2026-01-02") < said.index("2026-01-03")
    assert "80.0 % ▼" in said
    page = (folder / "history.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "4 files skipped" in page


def test_a_folder_without_checks_is_one_line(tmp_path: Path) -> None:
    def run(folder: Path) -> None:
        CliRunner().invoke(app, ["history", str(folder)], catch_exceptions=False)

    with pytest.raises(InputError, match="expected at least one check, got none"):
        run(tmp_path)
    with pytest.raises(InputError, match="expected a folder of checks, got nothing"):
        run(tmp_path / "missing")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"got none; a\.json: expected JSON"):
        run(tmp_path)
    assert not (tmp_path / "history.html").exists()
