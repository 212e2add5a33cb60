"""What a checkup comes to: one plain sentence, and the few numbers that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from assay.records.accuracy import CleanAccuracy, Proportion
from assay.records.anatomy import Anatomy
from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.finding import Category, Status, Verdict
from assay.records.gradients import DepthTrace
from assay.records.recurrence import TimeTrace
from assay.wording import ball, clip, compact, count, distance, epsilon, interval, norm, percent


@dataclass(frozen=True)
class Look:
    """How a status is told without colour: a word for one verdict, a sign, and a name for style sheets."""

    word: str
    sign: str
    name: str


LOOKS: dict[Status, Look] = {
    "error": Look("Fails", "✕", "error"),
    "warn": Look("Warning", "!", "warn"),
    "pass": Look("Holds", "✓", "pass"),
    "not run": Look("Did not run", "–", "skipped"),
}
SEVERITY: tuple[Status, ...] = ("error", "warn", "not run", "pass")
CREDIT: dict[Status, float] = {"pass": 1.0, "warn": 0.5, "error": 0.0}
TITLES: dict[Category, str] = {
    "accuracy": "Accuracy",
    "robustness": "Robustness",
    "invariance": "Invariance",
    "optimisation": "Optimisation health",
    "configuration": "Configuration",
    "redundancy": "Redundancy",
}
FORMULA = (
    "Score = 100 × (holds + ½ × warnings) ÷ audits that ran and judge the model. Audits marked ◇ judge the measurement "
    "itself: they never raise a score, and put it in doubt when they do not hold."
)


@dataclass(frozen=True)
class CategoryState:
    """One of the six categories: the worst status of its verdicts (``not run`` when none was judged)."""

    category: Category
    status: Status
    verdicts: tuple[Verdict, ...]

    @property
    def title(self) -> str:
        """The category's name as a heading."""
        return TITLES[self.category]

    @property
    def score(self) -> int | None:
        """100 × (passes + ½ × warnings) / rules that ran and judge the model, rounded; None when none did.

        Rounding never makes a whole of what is none: 100 means that everything passed, 0 that nothing did.
        """
        credits = [CREDIT[verdict.status] for verdict in self.verdicts if verdict.scored and verdict.status in CREDIT]
        if not credits:
            return None
        exact = 100 * sum(credits) / len(credits)
        return int(exact) if exact in {0, 100} else min(99, max(1, round(exact)))

    @property
    def doubts(self) -> tuple[Verdict, ...]:
        """Verdicts on the measurement that do not hold: the score is no better than they are."""
        return tuple(verdict for verdict in self.telling if not verdict.scored)

    @property
    def telling(self) -> tuple[Verdict, ...]:
        """The verdicts that call for something."""
        return tuple(verdict for verdict in self.verdicts if verdict.status in {"error", "warn"})

    @property
    def foremost(self) -> tuple[Verdict, ...]:
        """All that call for something, and at least three where there are as many."""
        return self.verdicts[: max(3, len(self.telling))]

    @property
    def summary(self) -> str:
        """``1 fails · 2 hold``."""
        words = {"error": "fail", "warn": "warn", "pass": "hold", "not run": "not run"}
        counts = [(status, sum(verdict.status == status for verdict in self.verdicts)) for status in SEVERITY]
        return " · ".join(f"{n} {words[status]}" for status, n in counts if n) or "nothing measured"


def in_order(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Worst first; within a status in the order of the rules."""
    return sorted(verdicts, key=lambda verdict: (SEVERITY.index(verdict.status), verdict.rule))


def states(verdicts: Sequence[Verdict]) -> tuple[CategoryState, ...]:
    """The six categories, each with its verdicts and the worst status among those that ran."""
    found = []
    for category in get_args(Category):
        own = tuple(in_order([verdict for verdict in verdicts if verdict.category == category]))
        ran = [verdict.status for verdict in own if verdict.status != "not run"]
        worst: Status = min(ran, key=SEVERITY.index) if ran else "not run"
        found.append(CategoryState(category, worst, own))
    return tuple(found)


def tally(verdicts: Sequence[Verdict]) -> dict[Status, int]:
    """How many verdicts have each status, every status present."""
    return {status: sum(verdict.status == status for verdict in verdicts) for status in SEVERITY}


def tally_sentence(verdicts: Sequence[Verdict]) -> str:
    """``Of 14 rules 3 fail, 2 warn, 8 hold and 1 did not run.``"""
    if not verdicts:
        return "No rule was judged."
    counts = tally(verdicts)
    forms = {"error": ("fails", "fail"), "warn": ("warns", "warn"), "pass": ("holds", "hold")}
    parts = [f"{n} {forms[status][n != 1]}" for status, n in counts.items() if n and status in forms]
    # "not run" comes last in the sentence, although it stands above the passes on the page
    parts += [f"{counts['not run']} did not run"] if counts["not run"] else []
    rules = "rule" if len(verdicts) == 1 else "rules"
    joined = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    return f"Of {len(verdicts)} {rules}, {joined}."


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
        return "Gradients traced: nothing found." if worst is None else f"Not met: {worst.claim} ({worst.measured})."
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
    size = epsilon(attack.epsilon, "linf") if attack.norm == "linf" else ball(attack)
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
        name = f"right after {attack.attack}, {ball(attack)}"
        found.append(Tile(name, percent(attack.accuracy), interval(attack), attack, "robust_accuracy"))
    curve = checkup.first(EpsilonCurve)
    if curve is not None and curve.median_epsilon is not None:
        size = distance(curve.median_epsilon, curve.norm)
        found.append(Tile("ε that breaks half", size, f"{curve.attack}, {norm(curve.norm)}", anchor="epsilon_curve"))
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
