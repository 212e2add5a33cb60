from __future__ import annotations

import contextlib
import io
import json
import runpy
from pathlib import Path

import pytest

from assay.records.base import Record

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs_is_short_and_says_something(script: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(script.read_text().splitlines()) <= 40
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(str(script), run_name="__main__")
    assert said.getvalue().count("\n") >= 2


def test_the_cells_of_the_notebook_run_and_its_last_expressions_show_themselves() -> None:
    cells = json.loads((FOLDER / "records.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    shown = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        *before, last = "".join(cell["source"]).splitlines()
        exec("\n".join(before), names)
        try:
            value = eval(last, names)
        except SyntaxError:
            exec(last, names)
            continue
        if isinstance(value, Record):
            assert value._repr_html_().startswith('<div class="assay-record">')
            shown += 1
    assert shown == 3
