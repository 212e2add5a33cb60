from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import wording
from assay.records.accuracy import Proportion

GAP = "\u00a0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.9173, "91.7 %"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.99999, "> 99.9 %"),
        (0.00001, "< 0.1 %"),
        (1.5, "150.0 %"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
    ],
)
def test_percent(value: float, expected: str) -> None:
    assert wording.percent(value).replace(GAP, " ") == expected


@given(st.floats(min_value=0, max_value=1))
def test_percent_never_claims_all_or_nothing_wrongly(share: float) -> None:
    text = wording.percent(share)
    assert text.startswith("100" + GAP) == (share == 1)
    assert (text == f"0{GAP}%") == (share == 0)


@pytest.mark.parametrize(
    ("size", "norm", "expected"),
    [
        (8 / 255, "linf", "8/255"),
        (0.5 / 255, "linf", "0.5/255"),
        (0.03, "linf", "0.03"),
        (0.0, "linf", "0"),
        (0.5, "l2", "0.5"),
        (8 / 255, "l2", "0.0314"),
        (128 / 255, "linf", "128/255"),
        (0.25 / 255, "linf", "0.25/255"),
        (0.3, "linf", "0.3"),
        (0.031, "linf", "0.031"),
        (1.0, "linf", "1"),
        (12.0, "l1", "12"),
        (25.0, "l0", "25 pixels"),
        (1.0, "l0", "1 pixel"),
    ],
)
def test_epsilon(size: float, norm: str, expected: str) -> None:
    assert wording.epsilon(size, norm) == expected


@pytest.mark.parametrize(
    ("size", "norm", "expected"),
    [(1.4 / 255, "linf", "1.4/255"), (0.0312, "linf", "7.96/255"), (0.4567, "l2", "0.457"), (math.inf, "linf", "∞")],
)
def test_distance(size: float, norm: str, expected: str) -> None:
    assert wording.distance(size, norm) == expected


@given(st.floats(min_value=0, max_value=1), st.sampled_from(["linf", "l2", "l1"]))
def test_the_epsilon_of_a_command_line_reads_back_exactly(size: float, norm: str) -> None:
    top, _, bottom = wording.epsilon_option(size, norm).partition("/")
    assert float(top) / float(bottom or 1) == size


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0, "0"),
        (0.2841, "0.284"),
        (12.0, "12"),
        (12345.6, "12,346"),
        (1.2e-7, "1.2 × 10⁻⁷"),
        (-3.5e9, "-3.5 × 10⁹"),
    ],
)
def test_number(value: float | None, expected: str) -> None:
    assert wording.number(value).replace(GAP, " ") == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_is_short_and_close(value: float) -> None:
    text = wording.number(value)
    assert len(text) <= 14
    if 1e-3 <= abs(value) < 1e5:
        assert float(text.replace(",", "")) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(0.34, "340 ms"), (2.3, "2.3 s"), (59.96, "1 min 00 s"), (72, "1 min 12 s"), (7500, "2 h 05 min")],
)
def test_seconds(duration: float, expected: str) -> None:
    assert wording.seconds(duration).replace(GAP, " ") == expected


def test_accuracy_tells_interval_and_sample_size() -> None:
    text = wording.accuracy(Proportion.of(917, 1000)).replace(GAP, " ")
    assert text == "91.7 % (89.8–93.3, n = 1,000)"


@given(st.text())
def test_inert_leaves_no_character_that_acts(text: str) -> None:
    shown = wording.inert(text, keep="")
    assert not [
        c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and c not in "\u200c\u200d"
    ]


def test_inert_leaves_ordinary_writing_alone() -> None:
    text = "Katze, 猫, גורה, قطة, चित्र, 👩‍🔬 ‖∂ℓ/∂x‖₂\n"
    assert wording.inert(text) == text


@given(st.lists(st.text(max_size=60), max_size=30))
def test_distinct_names_differ_and_fit(names: list[str]) -> None:
    shown = wording.distinct(names)
    assert len(set(shown)) == len(names) == len(shown)
    assert all(0 < len(name) <= 34 for name in shown)


def test_listed_and_plural() -> None:
    assert [wording.listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert (wording.plural(1, "rule"), wording.plural(1200, "rule")) == ("1 rule", "1,200 rules")
