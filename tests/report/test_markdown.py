from __future__ import annotations

import re
from datetime import date
from html import unescape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from assay.records.checkup import Checkup
from assay.records.finding import Acceptance, Verdict
from assay.report.markdown import escape, fence, render_markdown

GOLDEN = Path(__file__).parent / "golden"


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(text)


def test_the_summary_is_as_it_was(few: Checkup) -> None:
    assert render_markdown(few) == (GOLDEN / "check.md").read_text()


def test_the_summary_says_all_that_was_found(checkup: Checkup) -> None:
    page = unescape(re.sub(r"<[^>]*>", " ", rendered(render_markdown(checkup))))
    text = " ".join(page.split())
    for verdict in checkup.verdicts:
        assert " ".join(verdict.measured.split()) in text
        assert verdict.rule in text
    assert "0 % after PGD, 20 steps within 8/255" in text


def test_tables_have_as_many_cells_as_columns(hostile: Checkup) -> None:
    html = rendered(render_markdown(hostile))
    for block in re.findall(r"<table>.*?</table>", html, re.DOTALL):
        titles = block.count("<th>")
        assert titles and block.count("<td>") % titles == 0
        assert block.count("<td>") == titles * (block.count("<tr>") - 1)


HARMLESS = [
    "plain", "a|b", "*b*", "_u_", "`code`", "<script>alert(1)</script>", "[x](javascript:alert(1))", "- item", "+ item",
    "1. first", "# title", "~~gone~~", "&amp;", "\\", "a\nb", "![p](http://x/y.png)", "$x$", "a " * 3,
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_what_would_act_stays_text(text: str) -> None:
    html = rendered(escape(text))
    assert unescape(re.sub(r"<!-- -->|</?p>", "", html)).strip() == " ".join(text.split())
    assert set(re.findall(r"<([a-z]+)", html)) <= {"p"}


@pytest.mark.parametrize("text", ["@somebody", "owner/name#12", "https://example.org", "www.example.org", ":smile:"])
def test_a_forge_makes_no_link_of_it(text: str) -> None:
    assert text not in escape(text)
    assert re.sub(r"<!-- -->|\\", "", escape(text)) == text


def test_nothing_in_a_command_ends_its_block() -> None:
    command = "echo ```\nrm x"
    assert rendered("\n".join(fence(command))).count("<pre>") == 1
    assert unescape(rendered("\n".join(fence(command)))).count(command) == 1


def test_what_could_not_run_is_told_with_its_way_out(unmeasured: Checkup) -> None:
    text = render_markdown(unmeasured)
    assert "### Could not run" in text
    assert "| attacks (pgd) | no gradient | mend the model |" in text


def test_an_accepted_finding_says_why(few: Checkup) -> None:
    accepted = Acceptance(rule="A202", status="error", reason="replaced in March", accepted=date(2026, 1, 1))
    verdicts: tuple[Verdict, ...] = tuple(
        verdict.model_copy(update={"accepted": accepted}) if verdict.rule == "A202" else verdict
        for verdict in few.verdicts
    )
    text = render_markdown(few.model_copy(update={"verdicts": verdicts}))
    assert "A202 is accepted: replaced in March" in text
    assert "What to do" not in text


def test_an_empty_check_is_a_summary_too(bare: Checkup) -> None:
    assert "No rule was judged." in render_markdown(bare)
