"""The page and the table of claims, from records alone."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys

import pytest
from rich.console import Console

from assay.records.base import Environment
from assay.records.claims import (
    Axis,
    Chart,
    ClaimEvidence,
    ClaimFact,
    ClaimResult,
    ClaimSample,
    ClaimsReport,
    Effect,
    FailedClaim,
    Grid,
    Point,
    Reference,
)
from assay.report.claims_page import _strip, draw_chart, render_claims
from assay.report.claims_wording import headline, region
from assay.report.terminal.comparison import print_claims


def effect(**more: object) -> Effect:
    fields = {
        "name": "accuracy, with minus without",
        "unit": "points",
        "over": "seeds",
        "n": 5,
        "mean": 2.0,
        "low": 1.0,
        "high": 3.0,
        "confidence": 0.975,
        "expects": "increase",
        "margin": 0.5,
        "scale": "difference",
        "decides": True,
        "outcome": "supported",
    }
    return Effect(**{**fields, **more})


def chart(mark: str = "line", *, names: bool = False, log: bool = False, hole: float = math.nan) -> Chart:
    places: tuple[float | str, ...] = ("with skips & more", "without", "neither") if names else (1, 10, 100)
    points = [
        Point(series=series, x=x, y=base * (i + 1), low=base * i, high=base * (i + 2))
        for series, base in (("one", 1.0), ("two", 2.0))
        for i, x in enumerate(places)
    ]
    return Chart(
        finding=f"{mark} says something",
        mark=mark,
        x=Axis(title="depth, layers", scale="names" if names else "log" if log else "linear"),
        y=Axis(title="loss, nats", scale="log" if log else "linear"),
        points=(*points, Point(series="two", x=places[0], y=hole)),
        references=(Reference(y=1.5, name="chance"),),
    )


def result(name: str = "some-claim", verdict: str = "supported", **more: object) -> ClaimResult:
    fields = {
        "sentence": "Skips help <b>& more</b>.",
        "decides": "Accuracy after equal steps.",
        "would_change": "Another depth.",
        "references": ("He et al. 2016, arXiv:1512.03385",),
        "budget": "quick",
        "data": "digits",
        "seed": 0,
        "evidence": ClaimEvidence(
            how="Five seeds of `resnet20`.",
            samples=(ClaimSample(name="a", unit="points", values=(1.0, 2.0), expects="increase", margin=0.5),),
            facts=(ClaimFact(name="norms found", expected="20 of 20", got="17 of 20", holds=False, decides=False),),
            charts=(chart(),),
            tables=(Grid(caption="Numbers", columns=("net", "n"), rows=(("a", 3), ("b", 0.25))),),
            notes=("Read with care.",),
        ),
        "effects": (effect(), effect(mean=math.nan, low=-math.inf, high=math.inf, outcome="undecided")),
        "because": "accuracy, with minus without: 2 points",
        "seconds": 3.2,
    }
    return ClaimResult(id=name, verdict=verdict, **{**fields, **more})


def report(*results: ClaimResult, failed: tuple[FailedClaim, ...] = ()) -> ClaimsReport:
    return ClaimsReport(
        started="2026-03-01T12:00:00Z",
        budget="quick",
        data="digits",
        seed=0,
        environment=Environment(
            assay="0.1.0",
            python="3.12.4",
            torch="2.14.0",
            numpy="2.1.0",
            platform="Linux x86_64",
            processor="An ordinary processor",
            cores=2,
            threads=1,
            device="cpu",
            memory_gib=7.8,
        ),
        results=results,
        failed=failed,
        seconds=2.0,
    )


FAILED = FailedClaim(id="a-failed-one", sentence="It is so.", error="ValueError: <i>no</i>")


@pytest.fixture(scope="module")
def page() -> str:
    return render_claims(report(result(), result("other", "refuted"), result("third", "undecided"), failed=(FAILED,)))


def test_the_page_has_a_section_a_claim_with_all_that_was_asked(page: str) -> None:
    for name in ("some-claim", "other", "third", "a-failed-one"):
        assert f'id="{name}"' in page
    for text in ("Supported", "Refuted", "Undecided", "Could not be measured", "Accuracy after equal steps.",
                 "Another depth.", "Five seeds of <code>resnet20</code>.", "17 of 20", "Read with care.",
                 "line says something", "https://arxiv.org/abs/1512.03385", "above 0.5 points", "97.5"):  # fmt: skip
        assert text in page, text


def test_the_page_is_one_file_that_asks_for_nothing_and_runs_only_its_own_script(page: str) -> None:
    assert "Skips help &lt;b&gt;&amp; more&lt;/b&gt;." in page
    assert "<b>& more" not in page
    assert "<i>no</i>" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:|https://arxiv)", page)
    assert len(page) < 1_000_000


def test_no_torch_is_needed_to_draw_it() -> None:
    code = "import sys, assay.report.claims_page, assay.report.terminal.comparison; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_combination_of_marks_and_axes_is_drawn() -> None:
    for mark in ("line", "points", "bars"):
        for names in (False, True):
            for log in (False, True):
                figure = draw_chart(chart(mark, names=names, log=log))
                assert figure is not None
                assert figure.legend == ("one", "two")
                assert "<svg" in figure.wide
                assert "NaN" not in figure.wide
                assert "one, " in figure.narrow
                assert figure.note == "Dashed: chance, 1.5."
    assert draw_chart(chart().model_copy(update={"points": ()})) is None


def test_a_bar_starts_at_zero_and_a_whisker_is_its_interval() -> None:
    bars = Chart(
        finding="b",
        mark="bars",
        x=Axis(title="net", scale="names"),
        y=Axis(title="%"),
        points=(Point(x="a", y=50, low=25, high=100), Point(x="b", y=100)),
    )
    figure = draw_chart(bars)
    assert figure is not None
    half, whole = (float(length) for length in re.findall(r'd="M0,0h([\d.]+)v[^>]*data-tip', figure.wide))
    start, length = map(
        float, re.search(r'translate\(([\d.]+),[\d.]+\)" x2="([\d.]+)" y2="0" stroke="var\(--ink', figure.wide).groups()
    )
    assert half == pytest.approx(whole / 2)
    assert (start, length) == (pytest.approx(whole / 4), pytest.approx(0.75 * whole))


def test_a_strip_shows_where_the_claim_is_true() -> None:
    strip = _strip(effect())
    assert strip is not None
    assert strip.zero < strip.start < strip.low < strip.at < strip.high < 100 < strip.end
    assert strip.at == pytest.approx((strip.low + strip.high) / 2)
    assert _strip(effect(low=-math.inf)) is None
    ratio = _strip(effect(scale="ratio", mean=2.0, low=1.0, high=4.0, margin=1.5, expects="same"))
    assert ratio is not None
    assert ratio.at == pytest.approx((ratio.low + ratio.high) / 2)
    assert ratio.zero == pytest.approx((ratio.start + ratio.end) / 2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "above 0.5"),
        ({"expects": "decrease"}, "below −0.5"),
        ({"expects": "same"}, "between −0.5 and 0.5"),
        ({"expects": "decrease", "margin": 0.0}, "below 0"),
        ({"scale": "ratio", "margin": 2.0}, "above ×2"),
        ({"scale": "ratio", "margin": 2.0, "expects": "no decrease"}, "above ×1/2"),
    ],
    ids=str,
)
def test_what_a_claim_says_in_words(more: dict[str, object], words: str) -> None:
    assert region(effect(**more)) == words


def test_the_headline_counts_verdicts() -> None:
    every = report(result(), result("b", "refuted"), result("c", "refuted"), result("d", "undecided"), failed=(FAILED,))
    assert headline(every) == (
        "Of 5 textbook statements, 1 holds, 2 do not, 1 stays undecided and 1 could not be measured"
    )
    assert headline(report(result())) == "Of 1 textbook statement, 1 holds"


def test_the_table_reads_without_colour() -> None:
    out = io.StringIO()
    print_claims(report(result(), result("other", "refuted"), failed=(FAILED,)), Console(file=out, width=100))
    text = out.getvalue()
    for words in ("✓ supported", "✕ refuted", "some-claim", "– failed", "ValueError: <i>no</i>", "2 points"):
        assert words in text


def test_the_record_survives_json() -> None:
    whole = report(result(), failed=(FAILED,))
    again = ClaimsReport.model_validate_json(whole.model_dump_json())
    assert again.model_dump_json() == whole.model_dump_json()
