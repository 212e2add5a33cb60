"""From measured numbers to a verdict: the one rule that every claim is judged by.

A claim rests on samples of paired differences d₁ … d_n and on facts. For each sample the 95 % interval of the mean is
d̄ ± t_{n−1} s/√n (Student 1908), and the claim names the region of the mean in which it is true, a margin of
indifference m away from "no difference":

    increase μ > m      decrease μ < −m      same |μ| < m      no decrease μ > −m      no increase μ < m

An interval wholly inside the region supports the claim, one wholly outside refutes it, any other leaves it undecided.
So for normal differences either mistake has a probability of at most 2.5 % (5 % for the two-sided ``same``).
A claim of several parts is their conjunction: supported when every part is, refuted when one part is. Because one part
suffices to refute, the k parts that decide share the 5 %: each interval is at confidence 1 − 0.05/k (Bonferroni).
Facts come from closed forms and from counting; they hold or they do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from assay import wording
from assay.errors import OptionError
from assay.records.claims import ClaimEvidence, ClaimSample, ClaimStatus, Effect

CONFIDENCE = 0.95
SHOWN_PARTS = 2  # parts named in the sentence that says why


def weigh(evidence: ClaimEvidence) -> tuple[Effect, ...]:
    """Every sample with its interval and status; the samples that decide share the 5 % of error."""
    parts = max(1, sum(sample.decides for sample in evidence.samples))
    return tuple(
        weigh_sample(sample, confidence=1 - (1 - CONFIDENCE) / (parts if sample.decides else 1))
        for sample in evidence.samples
    )


def weigh_sample(sample: ClaimSample, *, confidence: float = CONFIDENCE) -> Effect:
    """The mean of one sample, its Student interval, and the status that follows.

    One value has no interval and decides nothing; nor do values that are not finite.
    Raises :class:`OptionError` for a margin that is no margin, and for a ratio that is not above zero.
    """
    ratio = sample.scale == "ratio"
    least = 1.0 if ratio else 0.0
    if not sample.margin >= least:
        raise OptionError(f"margin of {sample.name!r}", expected=f"at least {least:g}", got=sample.margin)
    if ratio and not all(value > 0 for value in sample.values):
        raise OptionError(f"values of {sample.name!r}", expected="ratios above 0", got=min(sample.values))
    values = [math.log(value) for value in sample.values] if ratio else list(sample.values)
    mean, low, high = interval(values, confidence=confidence)
    floor, ceiling = region(sample)
    status: ClaimStatus = "undecided"
    if floor < low and high < ceiling:
        status = "supported"
    elif high <= floor or low >= ceiling:
        status = "refuted"
    back = _exp if ratio else float
    return Effect(
        **sample.model_dump(exclude={"values"}),
        n=len(values),
        mean=back(mean),
        low=back(low),
        high=back(high),
        confidence=confidence,
        outcome=status,
    )


def region(sample: ClaimSample) -> tuple[float, float]:
    """The open interval of the mean (of the logarithm, for a ratio) in which the claim is true."""
    margin = math.log(sample.margin) if sample.scale == "ratio" else sample.margin
    return {
        "increase": (margin, math.inf),
        "decrease": (-math.inf, -margin),
        "same": (-margin, margin),
        "no decrease": (-margin, math.inf),
        "no increase": (-math.inf, margin),
    }[sample.expects]


def interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Mean, low and high of the Student interval; infinitely wide for fewer than two values or one not finite."""
    n = len(values)
    mean = math.fsum(values) / n if n and all(map(math.isfinite, values)) else math.nan
    if n < 2 or math.isnan(mean):
        return mean, -math.inf, math.inf
    if abs(mean) < 1e-12 * max(map(abs, values)):
        mean = 0.0  # what rounding leaves of differences that cancel
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = student_quantile(n - 1, confidence) * spread / math.sqrt(n)
    return mean, mean - half, mean + half


def student_quantile(freedom: int, confidence: float) -> float:
    """t with P(|T| < t) = ``confidence`` for T of ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def conclude(evidence: ClaimEvidence, effects: Sequence[Effect]) -> tuple[ClaimStatus, str]:
    """The verdict, and in one sentence why: refuted by any part that decides, supported by all of them."""
    parts: list[tuple[ClaimStatus, str]] = [(e.outcome, describe(e)) for e in effects if e.decides]
    parts += [
        ("supported" if f.holds else "refuted", f"{f.name}: {f.got}" + ("" if f.holds else f", not {f.expected}"))
        for f in evidence.facts
        if f.decides
    ]
    statuses: tuple[ClaimStatus, ...] = ("refuted", "undecided", "supported")
    for status in statuses:
        if matching := [text for part, text in parts if part == status]:
            more = f"; and {len(matching) - SHOWN_PARTS} more" if len(matching) > SHOWN_PARTS else ""
            return status, "; ".join(matching[:SHOWN_PARTS]) + more
    return "undecided", "nothing was measured"


def describe(effect: Effect) -> str:
    """'accuracy, after minus before: −0.4 points (−0.9 to 0.1, n = 5 seeds)'."""
    sign = "×" if effect.scale == "ratio" else ""
    unit = f" {effect.unit}" if effect.unit else ""
    mean, low, high = (f"{sign}{number(value)}" for value in (effect.mean, effect.low, effect.high))
    return f"{effect.name}: {mean}{unit} ({low} to {high}, n = {effect.n} {effect.over})"


def number(value: float) -> str:
    """Three significant digits and a true minus sign."""
    return wording.number(value).replace("-", "−")


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
