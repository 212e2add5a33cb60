"""How a command ends: 0, 1, 2, 3, 4 or 70, one line on standard error, and never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from assay.check.stages import STAGES
from assay.cli.check import FailOn, find_exit_code
from assay.records.reading import read_checkup

NET = """
import sys
import torch
from torch import nn

class NoBackward(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    def forward(self, images):
        if images.requires_grad:
            raise KeyError("no gradient here")
        return self.layers(images)

class Ends(nn.Linear):
    def forward(self, images):
        sys.exit(0)

net = lambda: NoBackward().eval()
ends = lambda: nn.Sequential(nn.Flatten(), Ends(1024, 10))
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def test_a_check_whose_attacks_could_not_run_is_not_green(
    net: Path, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"mode audit", "clean accuracy", "attacks"}
    monkeypatch.setattr("assay.check.run.STAGES", tuple(stage for stage in STAGES if stage.name in wanted))
    out = net.parent / "report"
    options = ("--data", "digits", "--budget", "quick", "--limit", 8, "--out", out, "--format", "junit")
    ended = assay("check", f"{net}:net", *options, "--format", "sarif", "--fail-on", "never")
    assert ended.code == 4, ended.err
    assert "Could not run" in ended.out
    assert "no gradient here" in ended.out
    document = json.loads((out / "check.json").read_text())
    assert [r["attack"] for r in document["records"] if r["kind"] == "robust_accuracy"] == ["noise"]
    assert {v["rule"]: v["status"] for v in document["verdicts"]}["A202"] == "could not run"
    root = ElementTree.parse(out / "check.junit.xml").getroot()
    assert int(root.attrib["errors"]) == len(root.findall(".//error")) > 0
    assert int(root.attrib["failures"]) == 0
    assert "could not be measured" in (out / "check.sarif").read_text()
    assert assay("report", out, "--format", "text").out.count("? Could not run attacks") == 3
    checkup = read_checkup(out / "check.json")
    assert [find_exit_code(checkup, fail_on=level) for level in FailOn] == [1, 4, 4]  # it warns, and a finding is first


def test_code_of_a_model_that_ends_the_program_is_no_success(net: Path, assay: Callable[..., Any]) -> None:
    ended = assay("check", f"{net}:ends", "--data", "digits", "--out", net.parent / "report")
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == "assay: the model or the data: expected code that returns, got SystemExit(0)"
    assert not (net.parent / "report" / "check.json").exists()


@pytest.mark.parametrize(
    "error", [KeyError("x"), StopIteration(), AssertionError("two\nlines"), MemoryError(), RecursionError("deep")]
)
def test_a_fault_of_our_own_is_one_line_and_a_file(
    error: Exception, tmp_path: Path, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("assay.report.terminal.check.print_rules", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = assay("explain")
    assert ended.code == 70
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    found = re.fullmatch(rf"assay: unexpected {type(error).__name__}\b.*; traceback in (.+)", line)
    assert found, line
    text = Path(found[1]).read_text()
    assert "Traceback (most recent call last)" in text
    assert "in broken" in text
    assert "torch" in text.splitlines()[0]


def test_a_fault_without_a_place_for_its_traceback_is_one_line(
    assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.report.terminal.check.print_rules", {})  # calling it is a TypeError
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    ended = assay("explain")
    assert ended.code == 70
    assert ended.err == "assay: unexpected TypeError: 'dict' object is not callable; its traceback cannot be written\n"


def test_a_disk_that_is_full_is_no_fault_of_ours(assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "cache.bin")

    monkeypatch.setattr("assay.report.terminal.check.print_rules", full)
    ended = assay("explain")
    assert (ended.code, ended.err) == (2, "assay: cache.bin: cannot be used (No space left on device)\n")


def run(command: str) -> subprocess.CompletedProcess[str]:
    script = f"set -o pipefail; {command}".replace("assay", f"{sys.executable} -m assay", 1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("assay explain | head -1", 0),
        ("assay explain >&-", 0),
        ("assay explain A000 2>&1 | true", 2),
        ("assay explain A000 2> /dev/full", 2),
    ],
)
def test_a_reader_that_has_gone_changes_nothing(command: str, code: int) -> None:
    done = run(command)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    done = run("assay explain > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "assay: standard output: cannot be written (No space left on device)\n"


def test_help_lists_the_exit_codes(assay: Callable[..., Any]) -> None:
    text = " ".join(assay("--help").out.split())
    assert all(f" {code} " in text[text.index("Exit codes:") :] for code in (0, 1, 2, 3, 4, 70))


def test_an_attack_keeps_what_it_measured_when_its_own_check_fails(
    net: Path, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr("assay.attacks.measure_attack_sanity", broken)
    options = ("--data", "digits", "--limit", 8, "--attack", "noise", "--json", net.parent / "records.json")
    ended = assay("attack", f"{net}:net", *options)
    assert ended.code == 4, ended.err
    assert "could not run: attack sanity: KeyError: 'gone'." in " ".join(ended.err.split())
    records = json.loads((net.parent / "records.json").read_text())
    assert [record["kind"] for record in records][:: len(records) - 1] == ["robust_accuracy", "failed_measurement"]
