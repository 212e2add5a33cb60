"""Accuracy under image transformations that keep the label."""

from __future__ import annotations

from dataclasses import replace

from assay.records.accuracy import Invariance, OperationAccuracy, OperationPoint
from assay.verdict import examples as ex
from assay.verdict.rule import (
    Rule,
    RuleExamples,
    RuleResult,
    gain_bounds,
    grade_bounds,
    grade_share,
    reads,
    tell_needed,
)
from assay.wording import percent

MILDEST_DROP = (0.03, 0.10)  # share of all samples lost at the lowest strength: warn, error
PERCEPTIBLE = {"Solarize"}  # its lowest strength already inverts white areas
ON_AVERAGE = (0.75, 0.50)  # share of the clean accuracy left over all operations: warn, error
AT_WORST = (0.60, 0.30)  # the same for the worst operation


def _fall(invariance: Invariance, point: OperationPoint, *, chosen_of: int = 1) -> tuple[float, float]:
    """The interval of the fall of the accuracy: the paired counts tell how much is noise."""
    low, high = gain_bounds(invariance.clean, lost=point.lost, gained=point.gained, chosen_of=chosen_of)
    return -high, -low


def _mildest(invariance: Invariance) -> RuleResult | None:
    graded = [
        each
        for each in invariance.operations
        if len(each.points) > 1 and each.points[0].n > 0 and each.operation not in PERCEPTIBLE
    ]
    if not graded or invariance.clean.correct == 0:
        return None
    least = {each.operation: _fall(invariance, each.points[0], chosen_of=len(graded))[0] for each in graded}
    most = {each.operation: _fall(invariance, each.points[0])[1] for each in graded}
    status = grade_bounds(max(least.values()), max(most.values()), warn=MILDEST_DROP[0], error=MILDEST_DROP[1])
    chosen = most if status == "cannot tell" else least
    worst = max(graded, key=lambda each: chosen[each.operation])
    point = worst.points[0]
    ends = " or ".join(f"{end:g}" for end in sorted({point.magnitude_low, point.magnitude_high}))
    setting = f"{worst.operation} {ends} {worst.unit}".strip()
    measured = f"{percent(invariance.clean.accuracy)} falls to {percent(point.accuracy)} under {setting}"
    fall = (point.lost - point.gained) / point.n
    needed = tell_needed(
        status,
        distance=abs(fall - MILDEST_DROP[0]),
        variance=max((point.lost + point.gained) / point.n - fall**2, MILDEST_DROP[0]),
        n=point.n,
    )
    short = f"{percent(invariance.clean.accuracy)} → {percent(point.accuracy)} under {setting}"
    result = RuleResult(
        status, f"{measured} (n = {point.n:,}){needed}", point.accuracy, where=worst.operation, short=short
    )
    return _fit_to(worst, result)


def _on_average(invariance: Invariance) -> RuleResult | None:
    over = f"{len(invariance.operations)} operations"
    return _relative(invariance, invariance.mean_accuracy, ON_AVERAGE, over=over)


def _at_worst(invariance: Invariance) -> RuleResult | None:
    worst, tried = invariance.worst_operation, len(invariance.operations)
    over = f"the strengths of {worst}"
    result = _relative(invariance, invariance.worst_accuracy, AT_WORST, over=over, where=worst, chosen_of=tried)
    operation = next((each for each in invariance.operations if each.operation == worst), None)
    return result if result is None or operation is None else _fit_to(operation, result)


def _relative(
    invariance: Invariance,
    accuracy: float,
    limits: tuple[float, float],
    *,
    over: str,
    where: str = "",
    chosen_of: int = 1,
) -> RuleResult | None:
    """``accuracy`` as a share of the clean accuracy, the lowest of ``chosen_of``."""
    clean = invariance.clean
    if clean.correct == 0 or not invariance.operations:
        return None
    share = min(accuracy / clean.accuracy, 1.0)
    status = grade_share(
        share * clean.correct, clean.correct, warn=limits[0], error=limits[1], chosen_of=max(chosen_of, 1)
    )
    measured = f"{percent(clean.accuracy)} falls to {percent(accuracy)} on average over {over} (n = {clean.n:,})"
    measured += tell_needed(
        status,
        distance=abs(share - limits[0]),
        variance=max(share * (1 - share), limits[0] * (1 - limits[0])) / clean.accuracy,
        n=clean.n,
        chosen_of=max(chosen_of, 1),
    )
    short = f"{percent(clean.accuracy)} → {percent(accuracy)}" + (f" under {where}" if where else "")
    return RuleResult(status, measured, accuracy, where=where, short=short)


def _fit_to(operation: OperationAccuracy, result: RuleResult) -> RuleResult:
    """The result, for a finding with what shows and what mends a fall under this operation, at its strengths."""
    if result.status not in {"warn", "error"}:
        return result
    name, points = operation.operation.lower(), operation.points
    ends = [end for point in points for end in (point.magnitude_low, point.magnitude_high)]
    strongest = points[-1].magnitude_high if points else 0.0
    between = f"{min(ends):g}, {max(ends):g}" if ends and operation.unit else ""
    policy = f"--set augment.name=policy --set 'augment.policy={name}({between})'"
    return replace(
        result,
        fix=f"Train with {operation.operation} among the augmentations; `assay augment` shows what it does.",
        command=f"assay augment --data DATA --magnitude {operation.operation}={strongest:g}",
        mend=f"assay train DATA --model MODEL {policy}",
    )


_AUGMENT = (
    "Train with image operations among the augmentations, for instance `randaugment`; `assay augment` shows what they "
    "do to the images."
)

RULES = (
    Rule(
        id="A301",
        claim="Invariant to barely perceptible image transformations",
        fault="Broken by a barely perceptible change",
        threshold="no operation at its lowest strength costs more than 3 points at the upper end of the 95 % interval "
        "of the fall (a warning where the lower end of one does, an error at 10 points; Bonferroni over operations)",
        **reads(Invariance, _mildest),
        why="A model whose prediction changes with one pixel or two degrees will change it on every new camera.",
        fix=_AUGMENT,
        command="assay check MODEL --data DATA",
        mend="assay train DATA --model MODEL --set augment.name=policy --set augment.policy=randaugment",
        limits="Lowest strengths were chosen for photographs; on tiny images one pixel of translation is no small "
        "change. On the few hundred images of a usual check it often cannot tell.",
        examples=RuleExamples(passing=lambda: (ex.invariance(900, 900),), failing=lambda: (ex.invariance(760, 900),)),
        reference="Azulay & Weiss 2019, Why do deep convolutional networks generalize so poorly to small image "
        "transformations?, arXiv:1805.12177",
    ),
    Rule(
        id="A302",
        claim="Robust to common image transformations on average",
        fault="Broken by common image transformations",
        threshold="at least 75 % of its clean accuracy left on average over operations, at the lower end of the 95 % "
        "interval (a warning where the upper end is below, an error below 50 %)",
        **reads(Invariance, _on_average),
        why="Light, framing and sharpness differ between the data at hand and the images to come.",
        fix=_AUGMENT,
        command="assay check MODEL --data DATA",
        mend="assay train DATA --model MODEL --set augment.name=policy --set augment.policy=randaugment",
        limits="The highest strengths change some labels (a rotated 6 is a 9), and the mean depends on which "
        "operations and strengths were run.",
        examples=RuleExamples(passing=lambda: (ex.invariance(900, 800),), failing=lambda: (ex.invariance(900, 300),)),
        reference="Hendrycks & Dietterich 2019, Benchmarking neural network robustness to common corruptions and "
        "perturbations, arXiv:1903.12261",
    ),
    Rule(
        id="A303",
        claim="Robust to the worst image transformation",
        fault="Broken by one image transformation",
        threshold="at least 60 % of its clean accuracy left under the worst operation, at the lower end of the 95 % "
        "interval (a warning where the upper end is below, an error below 30 %; Bonferroni over the operations)",
        **reads(Invariance, _at_worst),
        why="An average hides the one transformation that the model has never seen in training.",
        fix=_AUGMENT,
        command="assay check MODEL --data DATA",
        mend="assay train DATA --model MODEL --set augment.name=policy --set augment.policy=randaugment",
        limits="The worst of those that were run; and it may be one that no deployment meets, such as Solarize.",
        examples=RuleExamples(passing=lambda: (ex.invariance(900, 700),), failing=lambda: (ex.invariance(900, 50),)),
        reference="Engstrom et al. 2019, Exploring the landscape of spatial robustness, arXiv:1712.02779",
    ),
)
