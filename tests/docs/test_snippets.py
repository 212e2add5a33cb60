"""The Python of the pages runs as it stands: what a snippet uses is defined on its page, before it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from assay.attacks.options import REGISTRY

ROOT = Path(__file__).parents[2]
PAGES: dict[str, list[str]] = {
    page.relative_to(ROOT).as_posix(): runpy.run_path(str(Path(__file__).with_name("test_imports.py")))["blocks"](page)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
WITH_SNIPPETS = {name for name, blocks in PAGES.items() if blocks}
# What the reader of these pages brings; their names and arguments are checked all the same, in test_imports.py.
BROUGHT = {
    "docs/api/index.md": "a run folder",
    "docs/ci.md": "a network and its tests",
    "docs/data.md": "files, a loader and their columns",
    "docs/models.md": "networks of other libraries and exported files",
    "docs/scale.md": "a finished check",
    "docs/train.md": "a network, images and an attack",
}
FIRST = {"docs/lowrank.md": 1}  # the others run under torchrun
SLOW = {"README.md", "docs/trace.md"}


def test_every_page_with_snippets_runs_or_says_what_its_reader_brings() -> None:
    assert BROUGHT.keys() | FIRST.keys() | SLOW <= WITH_SNIPPETS


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(name, marks=pytest.mark.full if name in SLOW else ())
        for name in sorted(WITH_SNIPPETS - BROUGHT.keys())
    ],
)
def test_the_snippets_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "snippet"}
    attacks = dict(REGISTRY)
    try:
        for code in PAGES[page][: FIRST.get(page)]:
            exec(compile(code, page, "exec"), names)
    finally:  # one page adds an attack
        REGISTRY.clear()
        REGISTRY.update(attacks)
