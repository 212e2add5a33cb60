"""A clock that is set back while a verb works spoils no duration."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assay.cli.main import app

VERBS = {
    "trace": (["--task", "adding", "--length", "6", "--hidden", "4"], ["rnn"], "trace.json"),
    "check": (["--data", "digits", "--budget", "quick", "--limit", "10", "--fail-on", "never"], ["mlp"], "check.json"),
    "claims": (["--processes", "1"], ["factor-nonconvex"], "claims.json"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_durations_do_not_hang_on_the_time_of_day(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = itertools.count()

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=next(hours))

    for name in ("assay.check.run", "assay.claims.run", "assay.cli.trace"):
        importlib.import_module(name)
    clocks = [
        module for name, module in sys.modules.items() if name.startswith("assay.") and hasattr(module, "datetime")
    ]
    assert clocks
    for module in clocks:
        monkeypatch.setattr(module, "datetime", SetBack)
    options, subject, file = VERBS[verb]
    done = CliRunner().invoke(app, [verb, *subject, *options, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out" / file).read_text())
    assert 0 < written["seconds"] < 600
    assert next(hours) > 0, "the clock was read"
