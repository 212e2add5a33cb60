"""The measures of one check that can be held against another's, each under a key that two equal ones share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from assay.records.accuracy import CleanAccuracy, Proportion
from assay.records.anatomy import Anatomy
from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.augmentation import Invariance
from assay.records.checkup import Checkup
from assay.records.comparison import Quantity
from assay.records.samples import SampleBits, SampleLevels
from assay.wording import ball, epsilon, norm, plural


@dataclass(frozen=True)
class Share:
    """A share of samples that are right; ``setting`` must be equal for two of one ``topic`` to be comparable."""

    topic: str
    setting: str
    proportion: Proportion
    bits: SampleBits | None

    @property
    def name(self) -> str:
        """Topic and setting as one name."""
        return f"{self.topic}, {self.setting}" if self.setting else self.topic


@dataclass(frozen=True)
class Grade:
    """A mean over samples of a score from 0 to 1, ``worth[level]`` for each level that a sample can reach.

    ``counts`` is how many samples reached each level.
    """

    topic: str
    setting: str
    worth: tuple[float, ...]
    counts: tuple[int, ...] | None
    levels: SampleLevels | None
    n: int
    mean: float

    @property
    def name(self) -> str:
        """Topic and setting as one name."""
        return f"{self.topic}, {self.setting}" if self.setting else self.topic


def list_shares(checkup: Checkup) -> list[Share]:
    """The clean accuracy, and the accuracy after each attack."""
    found = [Share("clean accuracy", "", clean, clean.per_sample) for clean in checkup.each(CleanAccuracy) if clean.n]
    for attack in checkup.each(RobustAccuracy):
        if attack.n:
            found.append(Share(f"after {attack.attack}", _setting(attack), attack, attack.per_sample))
    return found


def _setting(attack: RobustAccuracy) -> str:
    parts = [ball(attack), plural(attack.steps, "step")]
    parts += [plural(attack.restarts, "restart")] if attack.restarts > 1 else []
    parts += (
        [f"of {epsilon(attack.step_size, attack.norm)}"] if attack.step_size is not None and attack.steps > 1 else []
    )
    return ", ".join(parts)


def area_of(curve: EpsilonCurve) -> Grade:
    """The mean accuracy over ε from 0 to the last point, straight between the points: the area under the curve."""
    sizes = [point.epsilon for point in curve.points]
    last = sizes[-1] or 1.0
    worth = [0.0]
    for k in range(len(sizes)):
        left = sizes[k] - sizes[k - 1] if k else 0.0
        right = sizes[k + 1] - sizes[k] if k + 1 < len(sizes) else 0.0
        worth.append(worth[-1] + (left + right) / 2 / last)
    held = [point.correct for point in curve.points]
    counts = [curve.points[0].n - held[0], *(a - b for a, b in pairwise(held)), held[-1]]
    falls = all(count >= 0 for count in counts) and len({point.n for point in curve.points}) == 1
    return Grade(
        topic="mean accuracy over ε",
        setting=curve_setting(curve),
        worth=tuple(worth),
        counts=tuple(counts) if falls else None,
        levels=curve.per_sample,
        n=curve.points[0].n,
        mean=sum(w * c for w, c in zip(worth, counts, strict=True)) / max(1, curve.points[0].n),
    )


def curve_setting(curve: EpsilonCurve) -> str:
    """Attack, norm, steps and the sizes it was run at: what two curves must share to be compared."""
    sizes = ", ".join(epsilon(point.epsilon, curve.norm) for point in curve.points)
    return f"{curve.attack}, {norm(curve.norm)}, {plural(curve.steps, 'step')}, ε of {sizes}"


def held_under_operations(invariance: Invariance) -> Grade:
    """The mean accuracy over all operations and strengths; how many of them each sample withstood."""
    pairs = [(each.operation, point.level) for each in invariance.operations for point in each.points]
    most = len(pairs)
    levels = invariance.per_sample
    counts = None if levels is None else [0] * (most + 1)
    if counts is not None and levels is not None:
        for level in levels.unpack():
            counts[min(level, most)] += 1
    operations = ", ".join(dict.fromkeys(name for name, _ in pairs))
    total = sum(point.correct for each in invariance.operations for point in each.points)
    return Grade(
        topic="under image operations",
        setting=f"{operations} at {most} strengths in all",
        worth=tuple(k / most for k in range(most + 1)),
        counts=None if counts is None else tuple(counts),
        levels=levels,
        n=invariance.clean.n,
        mean=total / max(1, most * invariance.clean.n),
    )


def list_quantities(checkup: Checkup) -> dict[str, Quantity]:
    """Numbers without a test, by name; the reference's value stands in both places until a candidate's comes."""
    found: list[Quantity] = []
    clean, curve, anatomy = checkup.first(CleanAccuracy), checkup.first(EpsilonCurve), checkup.first(Anatomy)
    if clean is not None:
        error = clean.expected_calibration_error
        found.append(Quantity(name="expected calibration error", reference=error, candidate=error, unit="share"))
        found.append(Quantity(name="cross-entropy (nats)", reference=clean.loss, candidate=clean.loss))
    if curve is not None and curve.median_epsilon is not None:
        half = curve.median_epsilon
        unit: Literal["", "epsilon"] = "epsilon" if curve.norm == "linf" else ""
        name = f"{norm(curve.norm)} ε that breaks half"
        found.append(Quantity(name=name, reference=half, candidate=half, unit=unit))
    if anatomy is not None:
        found.append(Quantity(name="parameters", reference=anatomy.parameters, candidate=anatomy.parameters))
        found.append(Quantity(name="operations an image", reference=anatomy.flops, candidate=anatomy.flops))
    return {quantity.name: quantity for quantity in found}
