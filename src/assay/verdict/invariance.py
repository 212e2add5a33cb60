"""Accuracy under image transformations that keep the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from assay.intervals import share_bounds
from assay.records.accuracy import Invariance, OperationAccuracy, OperationPoint
from assay.verdict import examples as ex
from assay.verdict.rule import (
    EARLY,
    NEARLY_EXACT,
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


def _fall(point: OperationPoint, *, chosen_of: int = 1) -> tuple[float, float]:
    """The interval of the fall of the accuracy: the paired counts tell how much is noise."""
    low, high = gain_bounds(point.before, lost=point.lost, gained=point.gained, chosen_of=chosen_of)
    return -high, -low


def _with_mild_strength(invariance: Invariance) -> list[OperationAccuracy]:
    """The operations whose lowest strength hardly anyone would notice."""
    return [
        each
        for each in invariance.operations
        if len(each.points) > 1 and each.points[0].n > 0 and each.operation not in PERCEPTIBLE
    ]


def _mildest(invariance: Invariance) -> RuleResult | None:
    graded = _with_mild_strength(invariance)
    if not graded or invariance.clean.correct == 0:
        return None
    least = {each.operation: _fall(each.points[0], chosen_of=len(graded))[0] for each in graded}
    most = {each.operation: _fall(each.points[0])[1] for each in graded}
    status = grade_bounds(max(least.values()), max(most.values()), warn=MILDEST_DROP[0], error=MILDEST_DROP[1])
    chosen = most if status == "cannot tell" else least
    worst = max(graded, key=lambda each: chosen[each.operation])
    point = worst.points[0]
    ends = " or ".join(f"{end:g}" for end in sorted({point.magnitude_low, point.magnitude_high}))
    setting = f"{worst.operation} {ends} {worst.unit}".strip()
    measured = f"{percent(point.before.accuracy)} falls to {percent(point.accuracy)} under {setting}"
    fall = (point.lost - point.gained) / point.n
    needed = tell_needed(
        status,
        distance=abs(fall - MILDEST_DROP[0]),
        variance=max((point.lost + point.gained) / point.n - fall**2, MILDEST_DROP[0]),
        n=point.n,
    )
    short = f"{percent(point.before.accuracy)} → {percent(point.accuracy)} under {setting}"
    result = RuleResult(
        status, f"{measured} (n = {point.n:,}){needed}", point.accuracy, where=worst.operation, short=short
    )
    return _fit_to(worst, result)


def _on_average(invariance: Invariance) -> RuleResult | None:
    over = f"{len(invariance.operations)} operations"
    return _relative(_accuracy_left(invariance, invariance.operations, invariance.mean_accuracy), ON_AVERAGE, over=over)


def _at_worst(invariance: Invariance) -> RuleResult | None:
    worst, tried = invariance.worst_operation, len(invariance.operations)
    over = f"the strengths of {worst}"
    operation = next((each for each in invariance.operations if each.operation == worst), None)
    left = _accuracy_left(invariance, [operation] if operation else invariance.operations, invariance.worst_accuracy)
    result = _relative(left, AT_WORST, over=over, where=worst, chosen_of=tried)
    return result if result is None or operation is None else _fit_to(operation, result)


@dataclass(frozen=True)
class AccuracyLeft:
    """The mean accuracy ``before`` some operations and ``after`` them; what of both is known of ``n`` samples."""

    before: float
    after: float
    n: int

    @property
    def share(self) -> float:
        """Of the accuracy before, what is left."""
        return min(self.after / self.before, 1.0)

    @property
    def correct(self) -> float:
        """Samples that were right before."""
        return self.before * self.n


def _accuracy_left(
    invariance: Invariance, operations: Sequence[OperationAccuracy], after: float
) -> AccuracyLeft | None:
    """The accuracy ``after`` beside that before, on the samples of every strength; of as many as the least one had.

    None where nothing was right before.
    """
    points = [each.points for each in operations]
    if not points or not all(points) or invariance.clean.correct == 0:
        return None
    if all(point.n == invariance.clean.n for each in points for point in each):
        return AccuracyLeft(invariance.clean.accuracy, after, invariance.clean.n)
    before = fmean(fmean(point.before.accuracy for point in each) for each in points)
    return AccuracyLeft(before, after, min(point.n for each in points for point in each)) if before > 0 else None


def _relative(
    left: AccuracyLeft | None, limits: tuple[float, float], *, over: str, where: str = "", chosen_of: int = 1
) -> RuleResult | None:
    """What is left as a share of what was, the lowest of ``chosen_of``."""
    if left is None:
        return None
    status = grade_share(
        left.share * left.correct, left.correct, warn=limits[0], error=limits[1], chosen_of=max(chosen_of, 1)
    )
    measured = f"{percent(left.before)} falls to {percent(left.after)} on average over {over} (n = {left.n:,})"
    measured += tell_needed(
        status,
        distance=abs(left.share - limits[0]),
        variance=max(left.share * (1 - left.share), limits[0] * (1 - limits[0])) / left.before,
        n=left.n,
        chosen_of=max(chosen_of, 1),
    )
    short = f"{percent(left.before)} → {percent(left.after)}" + (f" under {where}" if where else "")
    return RuleResult(status, measured, left.after, where=where, short=short)


Pairs = set[tuple[str, int]]  # of operation and level


def find_open_pairs(invariance: Invariance) -> Pairs:
    """What the rules here want more samples for, at bounds so wide that looking early hardly adds to their errors.

    Reference: Haybittle 1971, British Journal of Radiology 44, for stopping early at a much smaller error.
    """
    pairs: Pairs = set()
    mild = _with_mild_strength(invariance)
    falls = {each.operation: _fall(each.points[0], chosen_of=round(NEARLY_EXACT / EARLY)) for each in mild}
    if not any(low > MILDEST_DROP[1] for low, _ in falls.values()):
        pairs |= {(name, 1) for name, (_, high) in falls.items() if high > MILDEST_DROP[0]}
    all_pairs = {(each.operation, point.level) for each in invariance.operations for point in each.points}
    on_average = _early_bounds(_accuracy_left(invariance, invariance.operations, invariance.mean_accuracy))
    if not _is_settled([on_average], ON_AVERAGE):
        return all_pairs
    bounds = {
        each.operation: _early_bounds(
            _accuracy_left(invariance, [each], each.mean_accuracy), tried=len(invariance.operations)
        )
        for each in invariance.operations
    }
    if not _is_settled(list(bounds.values()), AT_WORST):
        low = {name for name, (least, _) in bounds.items() if least <= AT_WORST[0]}
        pairs |= {(name, level) for name, level in all_pairs if name in low}
    return pairs


def _early_bounds(left: AccuracyLeft | None, *, tried: int = 1) -> tuple[float, float]:
    """Of the share of the accuracy that is left."""
    if left is None:
        return 0.0, 1.0
    return share_bounds(left.share * left.correct, left.correct, level=EARLY / tried)


def _is_settled(bounds: Sequence[tuple[float, float]], limits: tuple[float, float]) -> bool:
    """Whether the least of these shares is clearly a pass, a warning or an error."""
    warn, error = limits
    if any(high < error for _, high in bounds) or all(low > warn for low, _ in bounds):
        return True
    return any(high < warn for _, high in bounds) and all(low > error for low, _ in bounds)


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
