"""A check stopped from outside ends with exit code 3, and goes on to the same records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from assay.check.run import PARTIAL

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1800, 10)).eval()
"""


# Who starts this suite in the background of a script makes all its children deaf to Ctrl-C.
LISTENING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("assay", run_name="__main__")
"""


def start(folder: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LISTENING, "check", f"{folder}/net.py:net", "--data", "digits"]
    options = ["--budget", "quick", "--limit", "60", "--fail-on", "never", "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def measured(out: Path) -> list[Any]:
    records = json.loads((out / "check.json").read_text())["records"]
    for record in records:
        for timing in ("seconds", "images_per_second"):
            record.pop(timing, None)
    return records


def finish(folder: Path, out: Path, *more: str) -> None:
    process = start(folder, out, *more)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model, whose path is in the records."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(model: Path) -> list[Any]:
    finish(model, model / "out")
    return measured(model / "out")


@pytest.mark.parametrize(
    ("how", "code"),
    [
        pytest.param(signal.SIGINT, 3, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 3, id="kill", marks=pytest.mark.full),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="kill -9"),
    ],
)
def test_a_stopped_check_resumes_to_the_same_records(
    tmp_path: Path, model: Path, uninterrupted: list[Any], how: signal.Signals, code: int
) -> None:
    process = start(model, tmp_path / "stopped")
    deadline = time.monotonic() + 120
    first = tmp_path / "stopped" / PARTIAL / "mode-audit.json"
    while not first.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "stopped" / "report.html").exists()

    finish(model, tmp_path / "stopped", "--resume")
    assert measured(tmp_path / "stopped") == uninterrupted
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == ["check.json", "report.html"]
