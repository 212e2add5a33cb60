"""The measures of a check that can be compared with another's, each with the setting that both must share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from assay.records.accuracy import CleanAccuracy, Invariance, Proportion
from assay.records.anatomy import Anatomy
from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.comparison import Quantity
from assay.records.samples import SampleBits, SampleLevels
from assay.wording import ball, epsilon, norm, plural

STRONGEST = "after pgd"  # of the attacks of a check; it comes first
Unit = Literal["", "share", "epsilon"]


@dataclass(frozen=True)
class Measure:
    """What was measured; two of one ``topic`` are comparable where their ``setting`` is equal."""

    topic: str
    setting: str

    @property
    def name(self) -> str:
        return f"{self.topic}, {self.setting}" if self.setting else self.topic


@dataclass(frozen=True)
class AccuracyMeasure(Measure):
    """An accuracy, and which samples were correct."""

    proportion: Proportion
    bits: SampleBits | None


@dataclass(frozen=True)
class ScoreMeasure(Measure):
    """A mean over n samples of a score in [0, 1]: ``scores[level]`` for a sample of that level (K levels).

    ``counts`` (K,) is the number of samples at each level, ``levels`` the level of each sample.
    """

    scores: tuple[float, ...]
    counts: tuple[int, ...] | None
    levels: SampleLevels | None
    n: int


def list_accuracies(checkup: Checkup) -> list[AccuracyMeasure]:
    """The clean accuracy, and the accuracy after each attack."""
    clean = [AccuracyMeasure("clean accuracy", "", c, c.per_sample) for c in checkup.each(CleanAccuracy)]
    robust = [AccuracyMeasure(f"after {r.attack}", _setting(r), r, r.per_sample) for r in checkup.each(RobustAccuracy)]
    robust.sort(key=lambda measure: measure.topic != STRONGEST)
    return [measure for measure in clean + robust if measure.proportion.n]


def _setting(attack: RobustAccuracy) -> str:
    parts = [ball(attack), plural(attack.steps, "step")]
    if attack.restarts > 1:
        parts.append(plural(attack.restarts, "restart"))
    if attack.step_size is not None and attack.steps > 1:
        parts.append(f"of {epsilon(attack.step_size, attack.norm)}")
    return ", ".join(parts)


def area_under_curve(curve: EpsilonCurve) -> ScoreMeasure:
    """The mean accuracy over ε from 0 to the last point, by the trapezoidal rule.

    A sample correct at the first k points has level k and score Σ_{j<k} w_j, w the weights of the rule over the range.
    """
    sizes = [point.epsilon for point in curve.points]
    last = sizes[-1] or 1.0
    scores = [0.0]
    for k in range(len(sizes)):
        left = sizes[k] - sizes[k - 1] if k else 0.0
        right = sizes[k + 1] - sizes[k] if k + 1 < len(sizes) else 0.0
        scores.append(scores[-1] + (left + right) / 2 / last)
    correct = [point.correct for point in curve.points]
    counts = [curve.points[0].n - correct[0], *(a - b for a, b in pairwise(correct)), correct[-1]]
    falling = all(count >= 0 for count in counts) and len({point.n for point in curve.points}) == 1
    return ScoreMeasure(
        topic="mean accuracy over ε",
        setting=curve_setting(curve),
        scores=tuple(scores),
        counts=tuple(counts) if falling else None,
        levels=curve.per_sample,
        n=curve.points[0].n,
    )


def curve_setting(curve: EpsilonCurve) -> str:
    """Attack, norm, steps and every epsilon: what two curves must share to be compared."""
    sizes = ", ".join(epsilon(point.epsilon, curve.norm) for point in curve.points)
    return f"{curve.attack}, {norm(curve.norm)}, {plural(curve.steps, 'step')}, ε of {sizes}"


def operation_score(invariance: Invariance) -> ScoreMeasure:
    """The mean accuracy over all K (operation, strength) pairs; a sample's level is the number it is correct under."""
    pairs = sum(len(each.points) for each in invariance.operations)
    levels = invariance.per_sample
    counts = None if levels is None else [0] * (pairs + 1)
    if counts is not None and levels is not None:
        for level in levels.unpack():
            counts[min(level, pairs)] += 1
    operations = ", ".join(each.operation for each in invariance.operations if each.points)
    return ScoreMeasure(
        topic="under image operations",
        setting=f"{operations} at {pairs} strengths in all",
        scores=tuple(k / pairs for k in range(pairs + 1)),
        counts=None if counts is None else tuple(counts),
        levels=levels,
        n=min((point.n for each in invariance.operations for point in each.points), default=invariance.clean.n),
    )


def compare_quantities(reference: Checkup, candidate: Checkup) -> tuple[Quantity, ...]:
    """The numbers that both checks hold and no test applies to."""
    before, after = _list_quantities(reference), _list_quantities(candidate)
    return tuple(
        Quantity(name=name, reference=value, candidate=after[name][0], unit=unit)
        for name, (value, unit) in before.items()
        if name in after
    )


def _list_quantities(checkup: Checkup) -> dict[str, tuple[float, Unit]]:
    values: dict[str, tuple[float, Unit]] = {}
    clean, curve, anatomy = checkup.first(CleanAccuracy), checkup.first(EpsilonCurve), checkup.first(Anatomy)
    if clean is not None and clean.scored:
        values["expected calibration error"] = (clean.expected_calibration_error, "share")
        values["cross-entropy (nats)"] = (clean.loss, "")
    if curve is not None and curve.median_epsilon is not None:
        unit: Unit = "epsilon" if curve.norm == "linf" else ""
        values[f"{norm(curve.norm)} ε that breaks half"] = (curve.median_epsilon, unit)
    if anatomy is not None:
        values["parameters"], values["operations an image"] = (anatomy.parameters, ""), (anatomy.flops, "")
    return values
