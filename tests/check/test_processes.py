"""Several processes share a check out and end in the records of one; a killed one leaves one to be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from typer.testing import CliRunner

from assay import check
from assay.cli import inputs
from assay.cli.main import app
from assay.files import remove_empty_folders
from assay.runtime import processes as runtime_processes
from assay.runtime.processes import Processes

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).eval()
"""
FAILS_IN_ONE = """
import os

class Net(nn.Sequential):
    def forward(self, images):
        if os.environ.get("RANK") == "1" and images.requires_grad:
            raise ZeroDivisionError("in one process")
        return super().forward(images)
"""
TIMINGS = {"seconds", "images_per_second", "started", "environment", "stages"}


def command(folder: Path, out: str, *, processes: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    check = ["-m", "assay", "check", f"{folder}/net.py:net", "--data", "digits", "--budget", "quick", "--limit", "20"]
    start = [sys.executable, *launcher] if processes > 1 else [sys.executable]
    return [*start, *check, "--fail-on", "never", "--out", str(folder / out), "--resume"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMINGS}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def measured(folder: Path, out: str) -> Any:
    return timeless(json.loads((folder / out / "check.json").read_text()))


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.full)])
def test_a_check_by_several_processes_has_the_records_of_one(tmp_path: Path, processes: int) -> None:
    (tmp_path / "net.py").write_text(NET)
    for out, count in (("alone", 1), ("together", processes)):
        done = subprocess.run(
            command(tmp_path, out, processes=count),
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert (tmp_path / out / "report.html").is_file(), done.stderr[-2000:]
    assert measured(tmp_path, "together") == measured(tmp_path, "alone")
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == ["check.json", "report.html"]


def test_a_process_that_ends_first_leaves_the_folder_to_the_one_that_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second(Processes):
        def gather(self, value: Any) -> list[Any]:
            (tmp_path / "out").mkdir(exist_ok=True)  # as the first one has done by then
            return [value, value]

    @contextmanager
    def joined() -> Iterator[Processes]:
        yield Second(1, 2)

    monkeypatch.setattr(runtime_processes, "joined_processes", joined)
    monkeypatch.setattr(inputs, "open_inputs", MagicMock())
    monkeypatch.setattr(check, "run_check", lambda *_, **__: None)
    assert CliRunner().invoke(app, ["check", "--out", str(tmp_path / "out")]).exit_code == 0
    remove_empty_folders()
    assert (tmp_path / "out").is_dir()


@pytest.mark.full
def test_a_killed_process_ends_the_job_and_another_takes_over_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    job = subprocess.Popen(
        command(tmp_path, "killed", processes=2), stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "check.partial").glob("*-audit.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True)
    os.kill(int(workers.stdout.split()[-1]), signal.SIGKILL)
    _, errors = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "SIGKILL" in errors or "Signal 9" in errors or "exitcode  : -9" in errors
    assert not (tmp_path / "killed" / "check.json").exists()
    for out in ("killed", "alone"):
        subprocess.run(command(tmp_path, out, processes=1), check=True, env=environment(), capture_output=True)
    assert measured(tmp_path, "killed") == measured(tmp_path, "alone")


@pytest.mark.full
def test_a_measurement_that_fails_in_one_process_leaves_the_others_in_step(tmp_path: Path) -> None:
    broken = NET.replace("return nn.Sequential(", "return Net(").replace("def net", FAILS_IN_ONE + "\ndef net")
    (tmp_path / "net.py").write_text(broken)
    subprocess.run(command(tmp_path, "out", processes=2), capture_output=True, env=environment(), check=False)
    records = json.loads((tmp_path / "out" / "check.json").read_text())["records"]
    failures = [record for record in records if record["kind"] == "failed_measurement"]
    assert failures
    assert all("ZeroDivisionError" in failure["reason"] for failure in failures)
    assert {"clean_accuracy", "layer_spectra", "mode_audit"} <= {record["kind"] for record in records}
