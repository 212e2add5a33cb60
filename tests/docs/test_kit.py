"""What a contributor is given agrees with itself: targets, versions, addresses."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml", ".pre-commit-config.yaml")
]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")
def test_make_alone_lists_every_target_with_what_it_does() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[1] for line in listed] == TARGETS
    assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_targets_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`|: |\n)make ([a-z-]+)", page.read_text()))
    assert named
    assert named <= set(TARGETS)


def test_the_workflow_runs_the_pythons_that_are_promised() -> None:
    matrix = re.search(r"python: \[(.+)\]", (ROOT / ".github/workflows/ci.yml").read_text())
    assert matrix
    promised = [name.split()[-1] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]
    assert re.findall(r"\d\.\d+", matrix[1]) == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_the_citation_names_this_version_and_this_address() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}\n" in citation
    assert f"repository-code: {PROJECT['urls']['Homepage']}\n" in citation
    assert f"license: {PROJECT['license']}\n" in citation
