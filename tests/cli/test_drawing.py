"""Results are on disk before anything is drawn from them: a failure or a signal while drawing takes none of them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.records.reading import read_checkup
from assay.report import check_page, comparison_page


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    logits = rng.normal(size=(60, 3)) + 2 * np.eye(3)[labels]
    np.savez(tmp_path / "logits.npz", logits=logits, labels=labels)
    return tmp_path / "logits.npz"


def fails(*_: object, **__: object) -> str:
    raise MemoryError("no room for a chart")


def is_stopped(*_: object, **__: object) -> str:
    signal.raise_signal(signal.SIGTERM)
    return ""


def check(assay: Callable[..., Any], predictions: Path) -> Any:
    out = predictions.parent / "out"
    return assay("check", "--predictions", predictions, "--out", out, "--format", "junit", "--format", "sarif")


def test_a_check_whose_page_cannot_be_drawn_keeps_its_results(
    assay: Callable[..., Any], predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(check_page, "render_page", fails)
        ended = check(assay, predictions)
    out = predictions.parent / "out"
    document = out / "check.json"
    assert ended.code == 70
    assert f"assay: the page could not be drawn; the results are in {document}; `assay report {document}` draws" in (
        ended.err
    )
    assert "no room for a chart" in ended.err
    assert f"Results: {document}" in ended.out
    assert sorted(path.name for path in out.iterdir()) == ["check.json", "check.junit.xml", "check.sarif"]
    assert read_checkup(document).verdicts
    assert assay("report", document).code == 0
    assert (out / "report.html").is_file()


def test_a_check_that_is_stopped_while_drawing_says_how_to_draw(
    assay: Callable[..., Any], predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_page, "render_page", is_stopped)
    ended = check(assay, predictions)
    document = predictions.parent / "out" / "check.json"
    assert ended.code == 3
    assert f"assay: interrupted while the page was drawn; the results are in {document}" in ended.err
    assert f"`assay report {document}` draws the page from them" in ended.err
    assert "--resume" not in ended.err  # it would measure everything again
    assert document.is_file()


def test_the_place_of_the_results_is_told_before_drawing(
    assay: Callable[..., Any], predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    draw = check_page.render_page

    def watched(checkup: Any) -> str:
        seen.append((predictions.parent / "out" / "check.json").read_text()[:1])
        return draw(checkup)

    monkeypatch.setattr(check_page, "render_page", watched)
    ended = check(assay, predictions)
    assert seen == ["{"]
    assert ended.out.index("Results: ") < ended.out.index("Report: ")


def test_a_comparison_whose_page_cannot_be_drawn_keeps_its_results(
    assay: Callable[..., Any], predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(assay, predictions)
    monkeypatch.setattr(comparison_page, "render_comparison", fails)
    folder = predictions.parent / "compared"
    ended = assay("compare", predictions.parent / "out", predictions, "--out", folder)
    assert ended.code == 70
    assert f"the results are in {folder / 'compare.json'}" in ended.err
    assert (folder / "compare.json").is_file()
