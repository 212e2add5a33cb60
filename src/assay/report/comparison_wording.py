"""A comparison in words, the same on the page and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from assay.records.comparison import Change, Comparison, Difference, Quantity, RuleChange, Versus
from assay.records.finding import Status
from assay.report.summary import LOOKS
from assay.wording import count, distance, listed, number, percent, plural

ARROW: dict[Change, str] = {"better": "▲", "worse": "▼", "no change beyond noise": "≈"}
TONE: dict[Change, Status] = {"better": "pass", "worse": "error", "no change beyond noise": "not run"}


def headline(comparison: Comparison) -> str:
    """What is better and what is worse, in one sentence."""
    return " ".join(f"{headline_of(versus)}." for versus in comparison.versus)


def headline_of(versus: Versus) -> str:
    """One candidate's part of the headline."""
    better, worse = (_named(versus, change) for change in ("better", "worse"))
    if not versus.differences:
        return f"{versus.candidate} has no measure in common with the reference"
    if not better and not worse:
        return f"{versus.candidate} does not differ beyond noise on any of {plural(len(versus.differences), 'measure')}"
    parts = [f"{verb} in {listed(names)}" for verb, names in (("worse", worse), ("better", better)) if names]
    return f"{versus.candidate} is {', '.join(parts)}"


def _named(versus: Versus, change: str) -> list[str]:
    names = [short_name(each, versus.differences) for each in versus.differences if each.change == change]
    return names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]


def tally(comparison: Comparison) -> str:
    """How many measures and rules went which way."""
    sentences = []
    for versus in comparison.versus:
        counts = {change: sum(each.change == change for each in versus.differences) for change in ARROW}
        said = listed([f"{n} {change}" for change, n in counts.items() if n]) or "none"
        worse = sum(each.change in {"worse", "not judged"} for each in versus.rules)
        better = sum(each.change == "better" for each in versus.rules)
        name = f"{versus.candidate}: " if len(comparison.versus) > 1 else ""
        sentences.append(
            f"{name}{plural(len(versus.differences), 'measure')}, {said}; "
            f"{plural(len(versus.rules), 'verdict')}, {better} better and {worse} worse."
        )
    return " ".join(sentences)


def short_name(difference: Difference, among: Sequence[Difference]) -> str:
    """The measure without its setting, where that is enough to tell it from the others."""
    topic = difference.measure.partition(",")[0]
    alone = sum(each.measure.partition(",")[0] == topic for each in among) == 1
    return topic if alone else difference.measure


def points(share: float, *, digits: int = 2) -> str:
    """A difference of shares in percentage points: ``+1.25``, ``−0.40``."""
    if not math.isfinite(share):
        return number(share)
    text = f"{abs(share) * 100:.{digits}f}"
    return ("±" if float(text) == 0 else "+" if share > 0 else "−") + text


def interval_of(difference: Difference) -> str:
    """``+1.20 (0.35 to 2.05)``, in percentage points."""
    low, high = (f"{bound * 100:.2f}".replace("-", "−") for bound in (difference.low, difference.high))
    return f"{points(difference.difference)} ({low} to {high})"


def p_value(p: float) -> str:
    """Two digits; ``< 0.0001`` below that."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def basis(difference: Difference) -> str:
    """What the test rests on: the pairs that differ, or the two sample sizes."""
    if not difference.paired:
        return f"not paired, n = {count(difference.n)} and {count(difference.n_candidate)}"
    flips = (
        "" if difference.lost is None else f", {count(difference.lost)} lost, {count(difference.gained or 0)} gained"
    )
    return f"n = {count(difference.n)}{flips}"


def flips(difference: Difference) -> str:
    """``6, 34 of 1,000``: samples right before only, and after only."""
    if not difference.paired:
        return f"{count(difference.n)}, {count(difference.n_candidate)} unpaired"
    both = "" if difference.lost is None else f"{count(difference.lost)}, {count(difference.gained or 0)} "
    return f"{both}of {count(difference.n)}"


def status_word(status: Status) -> str:
    """``✕ Fails``."""
    return f"{LOOKS[status].sign} {LOOKS[status].word}"


def rule_says(change: RuleChange) -> str:
    """What became of a rule, and why a move may mean nothing."""
    if change.change == "within noise":
        return f"moved, but {change.tested.partition(',')[0]} did not beyond noise"
    return "judged before, not now" if change.change == "not judged" else change.change


def value_of(quantity: Quantity, value: float) -> str:
    """The number in its unit."""
    if value.is_integer() and abs(value) >= 1000:
        return count(int(value))
    if quantity.unit == "share":
        return percent(value)
    return distance(value, "linf") if quantity.unit == "epsilon" else number(value)
