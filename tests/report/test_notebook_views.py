"""What a notebook shows of documents and measurements: finding, verdicts and charts, every text escaped."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

import assay
from assay.attacks.measure import RobustnessMeasurement
from assay.comparison import compare
from assay.records.base import Frozen
from assay.records.views import VIEWS
from assay.report.notebook import show_attack, show_checkup

NOTEBOOK = runpy.run_path(str(Path(__file__).parents[1] / "records" / "test_notebook.py"))
HOSTILE = NOTEBOOK["HOSTILE"]
CHART = re.compile(r'<svg [^>]*role="img"')


def check_offline(html: str) -> str:
    """Well-formed, without a script or an address to fetch, in light and in dark; the text of it."""
    seen = NOTEBOOK["read"](re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    assert "script" not in seen.tags
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert html.count("--ink: ") == 3
    assert html.index('data-jp-theme-light="false"') > html.index("prefers-color-scheme: dark")
    return " ".join(seen.text.split())


def test_a_check_shows_conclusion_findings_and_charts(checkup) -> None:
    html = checkup._repr_html_()
    text = check_offline(html)
    assert html == show_checkup(checkup)
    failing = [verdict for verdict in checkup.verdicts if verdict.status == "error"]
    assert failing
    assert all(f"({verdict.rule})" in text for verdict in failing[:3])
    assert len(CHART.findall(html)) >= 2
    assert len(html) < 400_000


def test_names_are_escaped(checkup) -> None:
    subject = checkup.subject.model_copy(update={"model": HOSTILE, "data": HOSTILE})
    text = check_offline(checkup.model_copy(update={"subject": subject})._repr_html_())
    assert "alert(1)" in text


def test_a_measurement_of_robustness_shows_accuracy_course_and_fields() -> None:
    record = NOTEBOOK["robust"](attack=HOSTILE)
    measurement = RobustnessMeasurement(record=record, result=None)  # type: ignore[arg-type]
    html = measurement._repr_html_()
    text = check_offline(html)
    assert html == show_attack(record)
    assert "25.0 %" in text.replace("\u00a0", " ")
    assert "90.0 % of the same images" in text.replace("\u00a0", " ")
    assert len(CHART.findall(html)) == 1
    assert "step size" in text


def test_a_factorisation_shows_what_is_proved_and_the_spectrum() -> None:
    factors = assay.factorize(torch.randn(12, 9), rank=3)
    html = factors._repr_html_()
    assert "Rank 3" in check_offline(html)
    assert len(CHART.findall(html)) == 1
    zero = assay.factorize(torch.zeros(4, 3), rank=1)
    assert not CHART.findall(zero._repr_html_())


def test_a_comparison_shows_what_changed(checkup) -> None:
    other = checkup.model_copy(update={"subject": checkup.subject.model_copy(update={"model": "other"})})
    html = compare([checkup, other])._repr_html_()
    assert "other does not differ on any of 5 measures" in check_offline(html)
    assert CHART.findall(html)


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_is_of_a_record_and_can_be_imported(name: str) -> None:
    def classes(kind: type) -> set[str]:
        return {kind.__name__} | {each for child in kind.__subclasses__() for each in classes(child)}

    module, _, function = VIEWS[name].partition(":")
    assert name in classes(Frozen)
    assert callable(getattr(__import__(module, fromlist=[function]), function))
