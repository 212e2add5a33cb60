from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from assay.records.checkup import Checkup
from assay.report.summary import tally_sentence
from assay.report.terminal.check import print_summary


def printed(checkup: Checkup, *, width: int = 80, **options: object) -> str:
    stream = io.StringIO()
    print_summary(checkup, Console(file=stream, width=width, **options))
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(checkup: Checkup, hostile: Checkup, width: int) -> None:
    for document in (checkup, hostile):
        assert max(cell_len(line) for line in printed(document, width=width).splitlines()) <= min(width, 100)


def test_findings_are_told_whole_and_passes_counted(checkup: Checkup) -> None:
    text = " ".join(printed(checkup).split())
    for verdict in checkup.verdicts:
        told = " ".join(f"{verdict.rule} {verdict.statement}".split()) in text
        assert told == (verdict.status in {"error", "warn"})
    assert tally_sentence(checkup.verdicts) in text
    assert "invariance (needs the budget standard)" in text


def test_it_reads_without_colour(checkup: Checkup) -> None:
    plain = printed(checkup, color_system=None)
    assert "\x1b" not in plain
    assert "✕ Fails" in plain
    assert "! Warns" in plain
    coloured = printed(checkup, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_hostile_names_neither_style_nor_control_the_terminal(hostile: Checkup) -> None:
    text = printed(hostile)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]x[/red]" in text


def test_nothing_measured_is_said(bare: Checkup) -> None:
    text = printed(bare)
    assert "not measured" in text
    assert "No rule was judged." in text


def test_each_category_has_its_score(checkup: Checkup) -> None:
    lines = [" ".join(line.split()) for line in printed(checkup).splitlines()]
    assert "✕ Fails 4 robustness 2 fail · 1 warn · 3 hold" in lines
    assert "– Not run – invariance 4 not run" in lines
