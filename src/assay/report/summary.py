"""What a checkup comes to: one plain sentence, and the few numbers that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from assay.records.accuracy import CleanAccuracy
from assay.records.anatomy import Anatomy
from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.configuration import PreparationAudit
from assay.records.failure import FailedMeasurement
from assay.records.finding import Category, Status, Verdict
from assay.records.gradients import DepthTrace
from assay.records.quality import Duplicates, PictureSurvey
from assay.records.recurrence import TimeTrace
from assay.records.scores import CREDIT, FitForUse, Fitness, score_by_failures
from assay.report.parts import KeyFigure
from assay.wording import (
    Proportion,
    attack,
    ball,
    clip,
    compact,
    count,
    count_rules,
    distance,
    epsilon,
    interval,
    listed,
    norm,
    percent,
    plural,
    seconds,
    status,
    visibility,
)


@dataclass(frozen=True)
class Look:
    """How a status is shown without colour: a word for one verdict, a sign, and a name for style sheets."""

    word: str
    sign: str
    name: str


_SIGNS: dict[Status, tuple[str, str]] = {
    "error": ("✕", "error"),
    "warn": ("!", "warn"),
    "pass": ("✓", "pass"),
    "cannot tell": ("≈", "undecided"),
    "could not run": ("?", "unmeasured"),
    "not run": ("–", "skipped"),
}
LOOKS: dict[Status, Look] = {
    name: Look(status(name).capitalize(), sign, style) for name, (sign, style) in _SIGNS.items()
}
SEVERITY: tuple[Status, ...] = ("error", "warn", "could not run", "cannot tell", "not run", "pass")
TITLES: dict[Category, str] = {
    "accuracy": "Accuracy",
    "robustness": "Robustness",
    "invariance": "Invariance",
    "optimisation": "Optimisation health",
    "configuration": "Configuration",
    "redundancy": "Redundancy",
    "data quality": "Data quality",
}
FORMULA = (
    "Score = 100 × (holds + ½ × warnings) ÷ audits that were decided and judge the model; halved where one of them "
    "fails, quartered where several do. Audits marked ◇ judge the measurement itself: they never raise a score, and "
    "put it in doubt when they do not hold. Where an audit could not run there is no score."
)
FITNESS: dict[Fitness, Status] = {
    "fit": "pass",
    "fit with limits": "warn",
    "not fit": "error",
    "cannot tell": "cannot tell",
}
INVALIDATES = {"A106", "A107", "A108"}  # where one of these fails, no other number means what it says
MOST_RULES = 3  # named beside a use


@dataclass(frozen=True)
class CategoryState:
    """One of the categories: the worst status of its verdicts (``not run`` when none was judged)."""

    category: Category
    status: Status
    verdicts: tuple[Verdict, ...]

    @property
    def title(self) -> str:
        """The category's name as a heading."""
        return TITLES[self.category]

    @property
    def score(self) -> int | None:
        """The score of its verdicts, in its latest version; None where there is none."""
        return score_by_failures(self.verdicts)

    @property
    def rests_on(self) -> Verdict | None:
        """The worst verdict of those that the score is made of; None where there is no score."""
        decided = [verdict for verdict in self.verdicts if verdict.scored and verdict.status in CREDIT]
        return None if self.score is None else decided[0]

    @property
    def findings(self) -> tuple[Verdict, ...]:
        """Errors and warnings."""
        return tuple(verdict for verdict in self.verdicts if verdict.status in {"error", "warn"})

    @property
    def failing_checks(self) -> tuple[Verdict, ...]:
        """Findings about the measurement: while they stand, the score cannot be trusted."""
        return tuple(verdict for verdict in self.findings if not verdict.scored)

    @property
    def top_findings(self) -> tuple[Verdict, ...]:
        """All findings; with the next verdicts to make three where there are as many."""
        return self.verdicts[: max(3, len(self.findings))]

    @property
    def summary(self) -> str:
        """``1 fails · 2 hold``."""
        counts = [(name, sum(verdict.status == name for verdict in self.verdicts)) for name in SEVERITY]
        words = {"error": "fail", "warn": "warn", "pass": "hold"}
        return " · ".join(f"{n} {words.get(name, status(name))}" for name, n in counts if n) or "nothing measured"


def in_order(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Worst first; within a status in the order of the rules."""
    return sorted(verdicts, key=lambda verdict: (SEVERITY.index(verdict.status), verdict.rule))


def states(verdicts: Sequence[Verdict]) -> tuple[CategoryState, ...]:
    """The categories, each with its verdicts and the worst status among those that ran.

    That of the data is one only where they were looked at.
    """
    categories = []
    for category in get_args(Category):
        own = tuple(in_order([verdict for verdict in verdicts if verdict.category == category]))
        if category == "data quality" and not own:
            continue
        ran = [verdict.status for verdict in own if verdict.status != "not run"]
        worst: Status = min(ran, key=SEVERITY.index) if ran else "not run"
        categories.append(CategoryState(category, worst, own))
    return tuple(categories)


def tally(verdicts: Sequence[Verdict]) -> dict[Status, int]:
    """How many verdicts have each status, every status present."""
    return {name: sum(verdict.status == name for verdict in verdicts) for name in SEVERITY}


def tally_sentence(verdicts: Sequence[Verdict]) -> str:
    """``Of 14 rules 3 fail, 2 warn, 8 hold and 1 did not run.``"""
    if not verdicts:
        return "No rule was judged."
    counts = tally(verdicts)
    # those that hold stand before those that were not judged, although they come last on the page
    order: tuple[Status, ...] = ("error", "warn", "pass", "cannot tell", "could not run", "not run")
    parts = [count_rules(counts[name], name) for name in order if counts[name]]
    rules = "rule" if len(verdicts) == 1 else "rules"
    joined = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    return f"Of {len(verdicts)} {rules}, {joined}."


def headline(checkup: Checkup) -> str:
    """The result as a sentence: right on clean images, after the first and the strongest attack; and what failed."""
    failed = [failure.place for failure in checkup.each(FailedMeasurement)]
    more = [f"{len(failed) - 3} more"] if len(failed) > 3 else []
    could_not = f" Could not run: {listed([*failed[:3], *more])}." if failed else ""
    if checkup.subject.source == "data":
        return _describe_data(checkup)
    reasons = "".join(f"{reason}: " for reason in nothing_to_test(checkup.verdicts))
    return reasons + _measured(checkup) + could_not


def _describe_data(checkup: Checkup) -> str:
    parts = [
        f"{plural(each.duplicates, 'picture')} of {count(each.n)} "
        + (f"also in {clip(each.against, 60)}" if each.against else "more than once in the set")
        for each in checkup.each(Duplicates)
    ]
    survey = checkup.first(PictureSurvey)
    parts += [] if survey is None else [f"{count(survey.n_odd + len(survey.unreadable))} odd or unreadable"]
    return f"{', '.join(parts)}." if parts else "Nothing was looked at."


def nothing_to_test(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Why no number of the check says what it seems to say: random weights, training images, labels permuted."""
    wrong = [verdict for verdict in in_order(verdicts) if verdict.rule in INVALIDATES and verdict.status == "error"]
    return tuple(verdict.fault.partition(":")[0] for verdict in wrong)


def warning(verdicts: Sequence[Verdict]) -> tuple[Status, str] | None:
    """What a banner over the whole page says; None where nothing takes the meaning of its numbers away."""
    reasons = nothing_to_test(verdicts)
    return ("error", f"{listed(reasons)}: no number here tells how good the model is") if reasons else None


def _measured(checkup: Checkup) -> str:
    clean, attacks = checkup.first(CleanAccuracy), _attacks(checkup)
    parts = [f"{percent(clean.accuracy)} right on clean images ({_n(clean)})"] if clean is not None else []
    parts += [_accuracy_after(attack) for attack in _representative(attacks)]
    if not parts and (checkup.first(TimeTrace) or checkup.first(DepthTrace)):
        return _traced(in_order(checkup.verdicts))
    if not parts:
        return "Inspected only: accuracy was not measured, and no attack was run."
    if clean is None:
        parts[0] = parts[0].replace("after", "right after", 1)
    return f"{', '.join(parts)}."


def _traced(verdicts: Sequence[Verdict]) -> str:
    """What a trace found, with the number it rests on: the worst finding, or the first rule of gradients that holds."""
    worst = next((verdict for verdict in verdicts if verdict.status in {"error", "warn"}), None)
    if worst is not None:
        return f"Not met: {worst.claim} ({worst.measured})."
    decided = [verdict for verdict in verdicts if verdict.status != "not run"]
    holding = [verdict for verdict in decided if verdict.status == "pass"]
    first = next((verdict for verdict in holding if verdict.category == "optimisation"), None)
    if first is None:
        return "Gradients traced: no rule on them was decided."
    share = f"{count(len(holding))} of {count(len(decided))} rules hold"
    return f"Gradients traced, {share}: {first.claim} ({first.measured})."


def subject_line(checkup: Checkup) -> str:
    """What was checked, and on how many samples of what."""
    subject = checkup.subject
    total = "" if subject.n == subject.available else f" of {count(subject.available)}"
    data = f"{subject.modality} of {clip(subject.data, 60)} ({subject.split})"
    if subject.source == "predictions":
        data = f"predictions, {clip(subject.data, 60)} ({subject.split})"
    if subject.source == "data":
        return f"{count(subject.n)}{total} {data}"
    return f"{clip(subject.model, 60)} · {count(subject.n)}{total} {data}"


def circumstances(checkup: Checkup) -> str:
    """Budget, seed and time; of predictions, which need neither of the first two, that no model was run."""
    if checkup.subject.source == "predictions":
        return f"Predictions only, no model was run, {seconds(checkup.seconds)}"
    if checkup.subject.source == "data":
        return f"Data only, without a model, {seconds(checkup.seconds)}"
    return f"Budget {checkup.budget}, seed {checkup.seed}, {seconds(checkup.seconds)}"


def describe_preparation(audit: PreparationAudit) -> str:
    """How the pictures became inputs, as far as that is known: in the words of ``--prepare``, with the source."""
    source = f" ({clip(audit.source, 80)})" if audit.source else ""
    how = f": {clip(audit.preparation, 200)}{source}" if audit.preparation else ""
    return f"Pictures of {audit.width}×{audit.height}{'' if audit.resized else ' as they are stored'}{how}."


def _attacks(checkup: Checkup) -> list[RobustAccuracy]:
    """Attacks within a stated ball; an attack without one says nothing about a given epsilon."""
    return [attack for attack in checkup.each(RobustAccuracy) if attack.constrained and attack.n]


def strongest_attack(checkup: Checkup) -> RobustAccuracy | None:
    """The attack within a stated ball that leaves the lowest accuracy; of equal ones the one of most steps."""
    return _strongest(_attacks(checkup))


def _strongest(attacks: Sequence[RobustAccuracy]) -> RobustAccuracy | None:
    return min(attacks, key=lambda each: (each.accuracy, -each.steps * each.restarts), default=None)


def _representative(attacks: Sequence[RobustAccuracy]) -> list[RobustAccuracy]:
    """The single step, and the strongest attack where that is another."""
    chosen = [attack for attack in attacks if _is_one_step(attack)][:1]
    strongest = _strongest(attacks)
    return chosen if strongest is None or strongest in chosen else [*chosen, strongest]


def size_of_change(checkup: Checkup) -> str:
    """What the ε of the headline means, once for each; empty where nothing was attacked within L∞."""
    sizes = dict.fromkeys(visibility(attack) for attack in _representative(_attacks(checkup)))
    return "; ".join(filter(None, sizes))


def _is_one_step(attack: RobustAccuracy) -> bool:
    """One gradient step: noise has no loss before and after a step."""
    return attack.steps == 1 and len(attack.loss_per_step) == 2


def _accuracy_after(robust: RobustAccuracy) -> str:
    size = epsilon(robust.epsilon, "linf") if robust.norm == "linf" else ball(robust)
    name = attack(robust.attack)
    if _is_one_step(robust):
        return f"{percent(robust.accuracy)} after {name}, one step of {size} ({_n(robust)})"
    # random draws leave a loss each, but none before the first: they are no steps
    stepped = robust.steps > 1 and len(robust.loss_per_step) > robust.steps
    steps = f", {count(robust.steps)} steps" if stepped else ""
    return f"{percent(robust.accuracy)} after {name}{steps} within {size} ({_n(robust)})"


def _n(proportion: Proportion) -> str:
    return f"n\u00a0=\u00a0{count(proportion.n)}"


def describe_uses(fitness: Sequence[FitForUse]) -> tuple[tuple[Status, str], ...]:
    """For each use its status and a sentence: ``Benign images: fit.``; one that was not asked for says so."""
    return tuple((FITNESS[each.fitness] if each.judged else "not run", _describe_use(each)) for each in fitness)


def _describe_use(each: FitForUse) -> str:
    more = [f"{len(each.because) - MOST_RULES} more"] if len(each.because) > MOST_RULES else []
    because = listed([*each.because[:MOST_RULES], *more])
    note = "" if each.judged else ", not asked for"
    return f"{each.use.capitalize()} images{note}: {each.fitness}" + (f" ({because})." if because else ".")


def key_figures(checkup: Checkup) -> tuple[KeyFigure, ...]:
    """The numbers for the top of the page, those that were measured."""
    figures: list[KeyFigure] = []
    clean, curve, anatomy = checkup.first(CleanAccuracy), checkup.first(EpsilonCurve), checkup.first(Anatomy)
    if clean is not None:
        figures.append(
            KeyFigure("clean accuracy", percent(clean.accuracy), interval(clean), "clean_accuracy", proportion=clean)
        )
    for robust in _representative(_attacks(checkup)):
        name = f"robust accuracy, {attack(robust.attack)}, {ball(robust)}"
        figures.append(
            KeyFigure(name, percent(robust.accuracy), interval(robust), "robust_accuracy", proportion=robust)
        )
    if curve is not None and curve.median_epsilon is not None:
        median = distance(curve.median_epsilon, curve.norm)
        of_one = bool(curve.points) and curve.points[0].n == 1
        name, detail = ("ε that breaks it", "one image") if of_one else ("ε that breaks half", "median")
        detail = f"{detail}, {attack(curve.attack)}, {norm(curve.norm)}"
        figures.append(KeyFigure(name, median, detail, "epsilon_curve"))
    if clean is not None and clean.scored:
        error, detail = clean.expected_calibration_error, f"ECE; mean confidence {percent(clean.mean_confidence)}"
        figures.append(KeyFigure("calibration error", percent(error), detail, "clean_accuracy"))
    for duplicates in checkup.each(Duplicates):
        where = f"of {count(duplicates.n)}, {percent(duplicates.duplicates / max(1, duplicates.n))}"
        name_of = "pictures also in the training images" if duplicates.against else "pictures more than once in the set"
        figures.append(KeyFigure(name_of, count(duplicates.duplicates), where, "duplicates"))
    if anatomy is not None:
        detail = f"{compact(anatomy.flops)} FLOPs"
        figures.append(KeyFigure("parameters", compact(anatomy.parameters), detail, "anatomy"))
    return tuple(figures)
