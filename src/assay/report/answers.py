"""What the first screen of a check answers: how good the model is, what breaks it, what to do, what it is fit for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from assay.records.accuracy import CleanAccuracy, Invariance
from assay.records.attack import RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.failure import FailedMeasurement
from assay.records.finding import Category, Status, Verdict
from assay.records.scores import Fitness
from assay.report.parts import KeyFigure
from assay.report.summary import INVALIDATES, headline, in_order, nothing_to_test, states, strongest_attack
from assay.wording import attack, ball, count, interval, listed, magnitude, percent, plural, visibility

MOST_MENDS = 3
MOST_PLACES = 3  # named in one mend
_FIT: dict[Fitness, str] = {
    "fit": "fit for",
    "fit with limits": "fit with limits for",
    "not fit": "not fit for",
    "cannot tell": "cannot tell for",
}


@dataclass(frozen=True)
class Mend:
    """Something to do: why, the command or the code that does it, and the rules that ask for it, the worst first."""

    status: Status
    text: str
    command: str
    rules: tuple[str, ...]
    anchor: str = "verdicts"


@dataclass(frozen=True)
class Answers:
    """How good, what breaks it, what to do; ``further`` counts the mends that have no place here."""

    template: ClassVar[str] = "answers.html"
    figures: tuple[KeyFigure, ...]
    mends: tuple[Mend, ...]
    further: int


def conclude(checkup: Checkup) -> str:
    """What the model is fit for, in a sentence; the headline where that cannot be told of any use."""
    if all(each.fitness == "cannot tell" for each in checkup.fitness):
        return headline(checkup)
    parts: list[str] = []
    for fitness, words in _FIT.items():
        uses = [each.use for each in checkup.fitness if each.fitness == fitness]
        if uses:
            parts.append(f"{words} {listed(uses)} {'ones' if parts else 'images'}")
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def answer(checkup: Checkup) -> Answers | None:
    """The answers; None where neither accuracy nor an attack was measured, as of gradients that were traced."""
    if checkup.first(CleanAccuracy) is None and checkup.first(RobustAccuracy) is None:
        return None
    mends = list_mends(checkup)
    return Answers(tuple(_figures(checkup)), mends[:MOST_MENDS], max(0, len(mends) - MOST_MENDS))


def _figures(checkup: Checkup) -> Iterator[KeyFigure]:
    worst: dict[Category, str] = {state.category: state.status for state in states(checkup.verdicts)}
    doubtful = bool(nothing_to_test(checkup.verdicts))
    clean = checkup.first(CleanAccuracy)
    if clean is None:
        yield KeyFigure("Clean images", "–", "not measured")
    else:
        detail = f"right, 95 % interval {interval(clean)}"
        status = "error" if doubtful else worst["accuracy"]
        yield KeyFigure("Clean images", percent(clean.accuracy), detail, "clean_accuracy", clean, status)
    strongest = strongest_attack(checkup)
    if strongest is None:
        yield KeyFigure("Strongest attack", "–", "none was run")
    else:
        yield _attacked(strongest, status=worst["robustness"])
    shifts = checkup.first(Invariance)
    if shifts is None or not shifts.operations:
        yield KeyFigure("Worst shift", "–", "none was tried")
    else:
        yield _shifted(shifts, status=worst["invariance"])


def _attacked(strongest: RobustAccuracy, *, status: str) -> KeyFigure:
    steps = f" of {plural(strongest.steps, 'step')}" if strongest.steps > 1 else ""
    seen = visibility(strongest).partition(": ")[2]
    name = f"Strongest attack: {attack(strongest.attack)}{steps}, {ball(strongest)}"
    detail = f"still right, {interval(strongest)}" + (f"; the change: {seen}" if seen else "")
    return KeyFigure(name, percent(strongest.accuracy), detail, "robust_accuracy", strongest, status)


def _shifted(shifts: Invariance, *, status: str) -> KeyFigure:
    worst = next((each for each in shifts.operations if each.operation == shifts.worst_operation), shifts.operations[0])
    last = worst.points[-1] if worst.points else None
    at = magnitude(last, worst.unit) if last else ""
    strongest = f"; {percent(last.accuracy)} at {at or 'its strongest'}" if last and len(worst.points) > 1 else ""
    over = f"on average over {plural(len(worst.points), 'strength')}{strongest}, n\u00a0=\u00a0{count(shifts.clean.n)}"
    name = f"Worst shift: {worst.operation}"
    return KeyFigure(name, percent(worst.mean_accuracy), f"still right {over}", "invariance", None, status)


def list_mends(checkup: Checkup) -> tuple[Mend, ...]:
    """What to do, the most valuable first, each once however many findings ask for it.

    First what takes the meaning of every number away, then what could not be measured, then the findings because of
    which the model is not fit, or has limits, for a use that was asked for, then the others; failures before warnings.
    Findings that were accepted ask for nothing.
    """
    limiting = {rule for each in checkup.fitness if each.judged for rule in each.because}
    findings = [v for v in in_order(checkup.verdicts) if v.fails("warn")]
    first = [v for v in findings if v.rule in INVALIDATES and v.status == "error"]
    rest = sorted((v for v in findings if v not in first), key=lambda v: v.rule not in limiting)
    return (*_once(first), *_failures(checkup), *_once(rest))


def _failures(checkup: Checkup) -> Iterator[Mend]:
    """A mend for each way out, with what failed; what a model of this kind does not have asks for nothing."""
    failing: dict[str, list[str]] = {}
    for each in checkup.each(FailedMeasurement):
        if not each.refused:
            failing.setdefault(each.way_out, []).append(each.place)
    for way_out, places in failing.items():
        more = [f"{len(places) - MOST_PLACES} more"] if len(places) > MOST_PLACES else []
        text = f"{listed([*places[:MOST_PLACES], *more]).capitalize()} could not run: {way_out}"
        yield Mend("could not run", text, "", (), "could-not-run")


def _once(findings: Sequence[Verdict]) -> Iterator[Mend]:
    """A mend for each command, in the order of the first finding that asks for it."""
    asking: dict[str, list[Verdict]] = {}
    for verdict in findings:
        asking.setdefault(verdict.mend or verdict.fix, []).append(verdict)
    for verdicts in asking.values():
        worst = verdicts[0]
        yield Mend(worst.status, worst.fix, worst.mend, tuple(verdict.rule for verdict in verdicts), worst.rule)
