"""What a checkup comes to: one plain sentence, and the few numbers that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.records.accuracy import CleanAccuracy, Proportion
from assay.records.anatomy import Anatomy
from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.depth_trace import DepthTrace
from assay.records.recurrence import TimeTrace
from assay.report.standing import in_order
from assay.report.wording import NORMS, clip, compact, count, epsilon, interval, number, percent


@dataclass(frozen=True)
class Tile:
    """One big number: its name, the number, what it is over, and its interval on a scale from 0 to 1."""

    name: str
    number: str
    detail: str
    proportion: Proportion | None = None
    anchor: str = ""


def headline(checkup: Checkup) -> str:
    """The result as a sentence: right on clean images, and after the first and the strongest attack."""
    clean, attacks = checkup.first(CleanAccuracy), _attacks(checkup)
    parts = [f"{percent(clean.accuracy)} right on clean images"] if clean is not None else []
    parts += [_blow(attack) for attack in _telling(attacks)]
    if not parts and (checkup.first(TimeTrace) or checkup.first(DepthTrace)):
        worst = next((v for v in in_order(checkup.verdicts) if v.status in {"error", "warn"}), None)
        return "Gradients traced: nothing found." if worst is None else f"{worst.claim}? {worst.measured}."
    if not parts:
        return "Looked at, not measured: neither accuracy nor an attack was asked for."
    if clean is None:
        parts[0] = parts[0].replace("after", "right after", 1)
    return f"{', '.join(parts)}."


def subject_line(checkup: Checkup) -> str:
    """What was put to the test, and on how many images of what."""
    subject = checkup.subject
    whole = "" if subject.n == subject.available else f" of {count(subject.available)}"
    data = f"{subject.modality} of {clip(subject.data, 60)} ({subject.split})"
    return f"{clip(subject.model, 60)} · {count(subject.n)}{whole} {data}"


def _attacks(checkup: Checkup) -> list[RobustAccuracy]:
    """Attacks within a stated ball; an attack without one says nothing about a given epsilon."""
    return [attack for attack in checkup.each(RobustAccuracy) if attack.constrained and attack.n]


def _telling(attacks: Sequence[RobustAccuracy]) -> list[RobustAccuracy]:
    """The single step, and the strongest attack where that is another."""
    chosen = [attack for attack in attacks if _is_one_step(attack)][:1]
    strongest = min(attacks, key=lambda attack: attack.accuracy, default=None)
    if strongest is not None and not any(strongest.accuracy == attack.accuracy for attack in chosen):
        chosen.append(strongest)
    return chosen


def _is_one_step(attack: RobustAccuracy) -> bool:
    """One gradient step: noise has no loss before and after a step."""
    return attack.steps == 1 and len(attack.loss_per_step) == 2


def _blow(attack: RobustAccuracy) -> str:
    size = f"{epsilon(attack.epsilon, attack.norm)}" + ("" if attack.norm == "linf" else f" ({NORMS[attack.norm]})")
    if _is_one_step(attack):
        return f"{percent(attack.accuracy)} after one step of {size}"
    steps = f"{count(attack.steps)} steps" if attack.steps > 1 else attack.attack
    return f"{percent(attack.accuracy)} after {steps} within {size}"


def tiles(checkup: Checkup) -> tuple[Tile, ...]:
    """The numbers for the top of the page, those that were measured."""
    found: list[Tile] = []
    clean = checkup.first(CleanAccuracy)
    if clean is not None:
        found.append(Tile("right, clean", percent(clean.accuracy), interval(clean), clean, "clean_accuracy"))
    for attack in _telling(_attacks(checkup)):
        size = f"{NORMS[attack.norm]} {epsilon(attack.epsilon, attack.norm)}"
        name = f"right after {attack.attack}, {size}"
        found.append(Tile(name, percent(attack.accuracy), interval(attack), attack, "robust_accuracy"))
    curve = checkup.first(EpsilonCurve)
    if curve is not None and curve.median_epsilon is not None:
        size = f"{curve.median_epsilon * 255:.2g}/255" if curve.norm == "linf" else number(curve.median_epsilon)
        found.append(Tile("ε that breaks half", size, f"{curve.attack}, {NORMS[curve.norm]}", anchor="epsilon_curve"))
    if clean is not None:
        detail = f"mean confidence {percent(clean.mean_confidence)}"
        found.append(
            Tile("calibration error", percent(clean.expected_calibration_error), detail, anchor="clean_accuracy")
        )
    anatomy = checkup.first(Anatomy)
    if anatomy is not None:
        detail = f"{compact(anatomy.flops)} operations"
        found.append(Tile("parameters", compact(anatomy.parameters), detail, anchor="anatomy"))
    return tuple(found)
