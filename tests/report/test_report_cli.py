from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from assay.cli.main import app
from assay.errors import InputError, OutputError
from assay.records.checkup import Checkup


@pytest.fixture
def folder(checkup: Checkup, tmp_path: Path) -> Path:
    (tmp_path / "check.json").write_text(checkup.model_dump_json())
    return tmp_path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_page_is_written_beside_the_document(folder: Path) -> None:
    assert f"Report: {folder / 'report.html'}" in run(folder).replace("\n", "")
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in folder.iterdir()) == ["check.json", "report.html"]


def test_other_forms(folder: Path) -> None:
    run(folder / "check.json", "--format", "junit", "--out", folder / "j.xml")
    assert ElementTree.parse(folder / "j.xml").getroot().tag == "testsuites"
    assert json.loads(run(folder, "--format", "sarif", "--out", "-"))["version"] == "2.1.0"
    assert "A201" in run(folder, "--format", "text")
    run(folder, "--format", "text", "--out", folder / "t.txt")
    assert "A201 Broken by FGSM: " in (folder / "t.txt").read_text()


def test_errors_leave_nothing_behind(folder: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        run(folder, "--out", folder / "missing" / "report.html")
    (folder / "check.json").write_text("{")
    with pytest.raises(InputError, match="expected JSON"):
        run(folder)
    assert [path.name for path in folder.iterdir()] == ["check.json"]


def test_drawing_needs_no_torch() -> None:
    modules = ["report.check_page", "report.terminal.check", "report.ci", "records.reading"]
    code = f"import sys; {'; '.join(f'import assay.{name}' for name in modules)}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
