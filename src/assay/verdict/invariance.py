"""Does the answer survive changes of the picture that leave its meaning alone?"""

from __future__ import annotations

import math

from assay.records.accuracy import Z_95
from assay.records.augmentation import Invariance, OperationAccuracy, OperationPoint
from assay.verdict.rule import Evidence, Outcome, Rule, grade, percent

NOTICED = (0.03, 0.10)  # share of all samples that an unnoticeable change may cost beyond noise: warn, error
VISIBLE = {"Solarize"}  # its mildest threshold turns white areas black, which anybody would notice
KEPT_ON_AVERAGE = (0.75, 0.50)  # share of the clean accuracy that should be left over all operations: warn, error
KEPT_AT_WORST = (0.60, 0.30)  # the same for the worst operation


def _drop_beyond_noise(point: OperationPoint) -> float:
    """The fall of the accuracy, (lost − gained)/n, less 1.96 standard errors of that paired difference."""
    difference = point.lost - point.gained
    variance = point.lost + point.gained - difference**2 / point.n
    return (difference - Z_95 * math.sqrt(max(variance, 0.0))) / point.n


def _measure(evidence: Evidence) -> Invariance | None:
    invariance = evidence.first(Invariance)
    return invariance if invariance is not None and invariance.clean.correct > 0 else None


def _unnoticeable(evidence: Evidence) -> Outcome | None:
    invariance = _measure(evidence)
    if invariance is None:
        return None
    graded = [each for each in invariance.operations if len(each.points) > 1 and each.operation not in VISIBLE]
    if not graded:
        return None
    worst = max(graded, key=lambda each: _drop_beyond_noise(each.points[0]))
    point, excess = worst.points[0], _drop_beyond_noise(worst.points[0])
    measured = f"{percent(invariance.clean.accuracy)} falls to {percent(point.accuracy)} under {_say(worst, point)}"
    return Outcome(grade(excess, warn=NOTICED[0], error=NOTICED[1]), measured, point.accuracy, where=worst.operation)


def _on_average(evidence: Evidence) -> Outcome | None:
    invariance = _measure(evidence)
    if invariance is None:
        return None
    kept = invariance.mean_accuracy / invariance.clean.accuracy
    measured = f"{percent(invariance.clean.accuracy)} falls to {percent(invariance.mean_accuracy)} on average"
    status = grade(-kept, warn=-KEPT_ON_AVERAGE[0], error=-KEPT_ON_AVERAGE[1])
    return Outcome(status, f"{measured} over {len(invariance.operations)} operations", invariance.mean_accuracy)


def _at_worst(evidence: Evidence) -> Outcome | None:
    invariance = _measure(evidence)
    if invariance is None:
        return None
    kept = invariance.worst_accuracy / invariance.clean.accuracy
    measured = f"{percent(invariance.clean.accuracy)} falls to {percent(invariance.worst_accuracy)} on average"
    return Outcome(
        grade(-kept, warn=-KEPT_AT_WORST[0], error=-KEPT_AT_WORST[1]),
        f"{measured} over the strengths of {invariance.worst_operation}",
        invariance.worst_accuracy,
        where=invariance.worst_operation,
    )


def _say(each: OperationAccuracy, point: OperationPoint) -> str:
    ends = sorted({point.magnitude_low, point.magnitude_high})
    return f"{each.operation} {' or '.join(f'{end:g}' for end in ends)} {each.unit}".strip()


_AUGMENT = (
    "Train with this operation among the augmentations, for instance `randaugment`, or `rotate(-15, 15)` in a policy "
    "of your own; `assay augment` shows what it does to the pictures."
)

RULES = (
    Rule(
        id="A301",
        category="invariance",
        claim="A change nobody would notice does not matter",
        threshold="no operation at its lowest strength costs more than 3 points beyond noise (error: 10 points)",
        needs=(Invariance,),
        judge=_unnoticeable,
        why="A model that changes its mind over one pixel or two degrees will do so on every new camera.",
        fix=_AUGMENT,
        reference="Azulay & Weiss 2019, Why do deep convolutional networks generalize so poorly to small image "
        "transformations?, arXiv:1805.12177",
    ),
    Rule(
        id="A302",
        category="invariance",
        claim="Ordinary changes of a picture cost little",
        threshold="at least 75 % of its clean accuracy left on average over operations (error below 50 %)",
        needs=(Invariance,),
        judge=_on_average,
        why="Light, framing and sharpness differ between the data at hand and the pictures to come.",
        fix=_AUGMENT,
        reference="Hendrycks & Dietterich 2019, Benchmarking neural network robustness to common corruptions and "
        "perturbations, arXiv:1903.12261",
    ),
    Rule(
        id="A303",
        category="invariance",
        claim="No single operation ruins it",
        threshold="at least 60 % of its clean accuracy left under the worst operation (error below 30 %)",
        needs=(Invariance,),
        judge=_at_worst,
        why="An average hides the one change that the model has never met.",
        fix=_AUGMENT,
        reference="Engstrom et al. 2019, Exploring the landscape of spatial robustness, arXiv:1712.02779",
    ),
)
