"""Accuracy under image transformations that keep the label."""

from __future__ import annotations

import math

from assay.records.accuracy import Z_95, Invariance, OperationPoint
from assay.verdict import examples as ex
from assay.verdict.rule import Rule, RuleExamples, RuleResult, grade, reads
from assay.wording import percent

MILDEST_DROP = (0.03, 0.10)  # share of all samples lost at the lowest strength beyond noise: warn, error
PERCEPTIBLE = {"Solarize"}  # its lowest strength already inverts white areas
ON_AVERAGE = (0.75, 0.50)  # share of the clean accuracy left over all operations: warn, error
AT_WORST = (0.60, 0.30)  # the same for the worst operation


def _drop_beyond_noise(point: OperationPoint) -> float:
    """The fall of the accuracy, (lost − gained)/n, less 1.96 standard errors of that paired difference."""
    difference = point.lost - point.gained
    variance = point.lost + point.gained - difference**2 / point.n
    return (difference - Z_95 * math.sqrt(max(variance, 0.0))) / point.n


def _mildest(invariance: Invariance) -> RuleResult | None:
    graded = [
        each
        for each in invariance.operations
        if len(each.points) > 1 and each.points[0].n > 0 and each.operation not in PERCEPTIBLE
    ]
    if not graded or invariance.clean.correct == 0:
        return None
    worst = max(graded, key=lambda each: _drop_beyond_noise(each.points[0]))
    point = worst.points[0]
    status = grade(_drop_beyond_noise(point), warn=MILDEST_DROP[0], error=MILDEST_DROP[1])
    ends = " or ".join(f"{end:g}" for end in sorted({point.magnitude_low, point.magnitude_high}))
    setting = f"{worst.operation} {ends} {worst.unit}".strip()
    measured = f"{percent(invariance.clean.accuracy)} falls to {percent(point.accuracy)} under {setting}"
    return RuleResult(status, measured, point.accuracy, where=worst.operation)


def _on_average(invariance: Invariance) -> RuleResult | None:
    over = f"{len(invariance.operations)} operations"
    return _relative(invariance, invariance.mean_accuracy, ON_AVERAGE, over=over)


def _at_worst(invariance: Invariance) -> RuleResult | None:
    worst = invariance.worst_operation
    return _relative(invariance, invariance.worst_accuracy, AT_WORST, over=f"the strengths of {worst}", where=worst)


def _relative(
    invariance: Invariance, accuracy: float, limits: tuple[float, float], *, over: str, where: str = ""
) -> RuleResult | None:
    """``accuracy`` as a share of the clean accuracy."""
    if invariance.clean.correct == 0 or not invariance.operations:
        return None
    status = grade(-accuracy / invariance.clean.accuracy, warn=-limits[0], error=-limits[1])
    measured = f"{percent(invariance.clean.accuracy)} falls to {percent(accuracy)} on average over {over}"
    return RuleResult(status, measured, accuracy, where=where)


_AUGMENT = (
    "Train with this operation among the augmentations, for instance `randaugment`, or `rotate(-15, 15)` in a policy "
    "of your own; `assay augment` shows what it does to the images."
)

RULES = (
    Rule(
        id="A301",
        claim="Invariant to barely perceptible image transformations",
        threshold="no operation at its lowest strength costs more than 3 points beyond noise (error: 10 points)",
        **reads(Invariance, _mildest),
        why="A model whose prediction changes with one pixel or two degrees will change it on every new camera.",
        fix=_AUGMENT,
        limits="Lowest strengths were chosen for photographs; on tiny images one pixel of translation is no small "
        "change. The worst of many operations is taken without correction for their number.",
        examples=RuleExamples(passing=lambda: (ex.invariance(900, 900),), failing=lambda: (ex.invariance(760, 900),)),
        reference="Azulay & Weiss 2019, Why do deep convolutional networks generalize so poorly to small image "
        "transformations?, arXiv:1805.12177",
    ),
    Rule(
        id="A302",
        claim="Robust to common image transformations on average",
        threshold="at least 75 % of its clean accuracy left on average over operations (error below 50 %)",
        **reads(Invariance, _on_average),
        why="Light, framing and sharpness differ between the data at hand and the images to come.",
        fix=_AUGMENT,
        limits="The highest strengths change some labels (a rotated 6 is a 9), and the mean depends on which "
        "operations and strengths were run.",
        examples=RuleExamples(passing=lambda: (ex.invariance(900, 800),), failing=lambda: (ex.invariance(900, 300),)),
        reference="Hendrycks & Dietterich 2019, Benchmarking neural network robustness to common corruptions and "
        "perturbations, arXiv:1903.12261",
    ),
    Rule(
        id="A303",
        claim="Robust to the worst image transformation",
        threshold="at least 60 % of its clean accuracy left under the worst operation (error below 30 %)",
        **reads(Invariance, _at_worst),
        why="An average hides the one transformation that the model has never seen in training.",
        fix=_AUGMENT,
        limits="The worst of those that were run; and it may be one that no deployment meets, such as Solarize.",
        examples=RuleExamples(passing=lambda: (ex.invariance(900, 700),), failing=lambda: (ex.invariance(900, 50),)),
        reference="Engstrom et al. 2019, Exploring the landscape of spatial robustness, arXiv:1712.02779",
    ),
)
