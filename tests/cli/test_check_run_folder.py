"""A run of `assay train` brings its data and its history to a check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUICK = ["--budget", "quick", "--limit", "20", "--fail-on", "never"]


def test_a_trained_run_is_checked_on_its_own_data(tmp_path: Path, assay: Callable[..., Any]) -> None:
    run, report = tmp_path / "run", tmp_path / "report"
    assert (
        assay("train", "digits", "--out", run, "--set", "epochs=1", "--set", "model_options.widths=[8,8,8]").code == 0
    )
    ended = assay("check", run, "--out", report, "--format", "junit", "--format", "sarif", *QUICK)
    assert ended.code == 0, ended.err
    assert {path.name for path in report.iterdir()} == {"check.json", "report.html", "check.junit.xml", "check.sarif"}
    document = json.loads((report / "check.json").read_text())
    assert document["subject"]["data"] == "digits"
    assert [record["kind"] for record in document["records"]].count("training_run") == 1

    (run / "training.json").write_text("{}")
    broken = assay("check", run, "--out", tmp_path / "other", *QUICK)
    assert broken.code == 2
    assert "training.json: expected the record of a training run" in broken.err
