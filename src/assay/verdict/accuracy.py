"""Is the model right, for every class, and does it know how sure to be?"""

from __future__ import annotations

from assay.records.accuracy import CleanAccuracy
from assay.verdict.rule import Evidence, Outcome, Rule, grade, name_some, percent

WORST_CLASS_GAP = (0.15, 0.40)
CALIBRATION_ERROR = (0.05, 0.15)
INTERVAL_WIDTH = 0.06


def _better_than_guessing(evidence: Evidence) -> Outcome | None:
    clean = evidence.first(CleanAccuracy)
    assert clean is not None
    majority = max(group.n for group in clean.per_class) / clean.n
    measured = f"{percent(clean.accuracy)} ({percent(clean.low)} to {percent(clean.high)}) against {percent(majority)}"
    if clean.low > majority:
        return Outcome("pass", measured, clean.accuracy)
    return Outcome("warn" if clean.high > majority else "error", measured, clean.accuracy)


def _no_class_left_behind(evidence: Evidence) -> Outcome | None:
    clean = evidence.first(CleanAccuracy)
    assert clean is not None
    seen = [group for group in clean.per_class if group.n > 0]
    if len(seen) < 2:
        return None
    # The upper end of the interval: a class of three samples is not accused on the strength of one.
    worst = min(seen, key=lambda group: group.high)
    gap = clean.accuracy - worst.high
    behind = [group.name for group in seen if clean.accuracy - group.high > WORST_CLASS_GAP[0]]
    lowest = min(seen, key=lambda group: group.accuracy)
    measured = (
        f"worst class {lowest.name}: {percent(lowest.accuracy)} of {lowest.n}, all classes {percent(clean.accuracy)}"
    )
    status = grade(gap, warn=WORST_CLASS_GAP[0], error=WORST_CLASS_GAP[1])
    return Outcome(status, measured, clean.accuracy - lowest.accuracy, where=name_some(behind or [lowest.name]))


def _calibrated(evidence: Evidence) -> Outcome | None:
    clean = evidence.first(CleanAccuracy)
    assert clean is not None
    error = clean.expected_calibration_error
    sure = "too sure" if clean.mean_confidence > clean.accuracy else "too unsure"
    measured = f"{percent(error)}; mean confidence {percent(clean.mean_confidence)}, right {percent(clean.accuracy)}"
    status = grade(error, warn=CALIBRATION_ERROR[0], error=CALIBRATION_ERROR[1])
    return Outcome(status, measured, error, where="" if status == "pass" else f"the model is {sure}")


def _finite(evidence: Evidence) -> Outcome | None:
    clean = evidence.first(CleanAccuracy)
    assert clean is not None
    return Outcome(
        "error" if clean.non_finite else "pass", f"{clean.non_finite} of {clean.n} samples", float(clean.non_finite)
    )


def _enough_samples(evidence: Evidence) -> Outcome | None:
    clean = evidence.first(CleanAccuracy)
    assert clean is not None
    width = clean.high - clean.low
    measured = f"{100 * width:.1f} points wide at n = {clean.n:,}"
    return Outcome("pass" if width <= INTERVAL_WIDTH else "warn", measured, width)


RULES = (
    Rule(
        id="A101",
        category="accuracy",
        claim="It is better than always naming the commonest class",
        threshold="the whole 95 % interval above the commonest class's share",
        needs=(CleanAccuracy,),
        judge=_better_than_guessing,
        why="A classifier that a constant answer can match has learnt nothing that anyone can use.",
        fix="Check that class order, input range, channel order and normalisation are those of the training.",
        reference="Wilson 1927, JASA 22 (the interval)",
    ),
    Rule(
        id="A102",
        category="accuracy",
        claim="No class is left behind",
        threshold="every class within 15 points of the mean (error beyond 40), at the upper end of its interval",
        needs=(CleanAccuracy,),
        judge=_no_class_left_behind,
        why="A good mean hides a class that fails; its users meet only that class.",
        fix="Look at the confusion matrix; collect or re-weight samples of that class, and check its labels.",
        reference="Sagawa et al. 2020, Distributionally robust neural networks, arXiv:1911.08731",
    ),
    Rule(
        id="A103",
        category="accuracy",
        claim="Its confidence can be believed",
        threshold="expected calibration error at most 5 % (error beyond 15 %)",
        needs=(CleanAccuracy,),
        judge=_calibrated,
        why="Whoever thresholds, ranks or abstains by confidence relies on 90 % sure being right nine times in ten.",
        fix="Fit one temperature on held-out data and divide the logits by it; it changes no prediction.",
        reference="Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599",
        remedy="temperature",
    ),
    Rule(
        id="A104",
        category="accuracy",
        claim="Every output is a finite number",
        threshold="0 samples with a NaN or an infinity in the logits",
        needs=(CleanAccuracy,),
        judge=_finite,
        why="A NaN compares as neither right nor wrong and spreads into every mean; such samples count as wrong here.",
        fix="Find the first layer with non-finite outputs (see the gradient flow); look for division, log or overflow.",
        reference="IEEE 754-2019, section 6.2",
    ),
    Rule(
        id="A105",
        category="accuracy",
        claim="There were enough samples to tell",
        threshold="95 % interval of the accuracy at most 6 points wide",
        needs=(CleanAccuracy,),
        judge=_enough_samples,
        why="On few images two models that differ by several points cannot be told apart.",
        fix="Use more test samples: the width falls with the square root of n.",
        reference="Wilson 1927, JASA 22",
    ),
)
