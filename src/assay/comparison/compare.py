"""Checks against a reference: every common measure tested, all tests corrected together, every verdict side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.comparison.differences import Found, find_differences
from assay.comparison.measures import list_quantities
from assay.comparison.statistics import RESAMPLES, holm
from assay.errors import InputError
from assay.records.checkup import Checkup
from assay.records.comparison import Change, Compared, Comparison, Difference, Quantity, RuleChange, Versus
from assay.records.finding import Status, Verdict

SEVERITY: dict[Status, int] = {"pass": 0, "warn": 1, "error": 2}
# the start of the measure whose test decides whether a rule's number moved at all
RESTS_ON = {
    "A101": "clean accuracy",
    "A201": "after fgsm",
    "A202": "after pgd",
    "A203": "mean accuracy over ε",
    "A302": "under image operations",
}


def compare_rules(
    reference: Checkup, candidate: Checkup, differences: Mapping[str, Difference]
) -> tuple[RuleChange, ...]:
    """Every rule that either check judged, worsened ones first. ``differences`` are those found, by measure."""
    before = {verdict.rule: verdict for verdict in reference.verdicts}
    after = {verdict.rule: verdict for verdict in candidate.verdicts}
    order = ("worse", "not judged", "better", "within noise", "newly judged", "same")
    changes = [_compare(rule, before.get(rule), after.get(rule), differences) for rule in sorted({*before, *after})]
    return tuple(sorted(changes, key=lambda change: (order.index(change.change), change.rule)))


def _compare(
    rule: str, before: Verdict | None, after: Verdict | None, differences: Mapping[str, Difference]
) -> RuleChange:
    known = before or after
    assert known is not None
    was: Status = before.status if before else "not run"
    now: Status = after.status if after else "not run"
    topic = RESTS_ON.get(rule)
    tested = next((found for name, found in differences.items() if topic and name.startswith(topic)), None)
    change: str
    if was == now:
        change = "same"
    elif now == "not run":
        change = "not judged"
    elif was == "not run":
        change = "newly judged"
    elif tested is not None and tested.change == "no change beyond noise":
        change = "within noise"
    else:
        change = "worse" if SEVERITY[now] > SEVERITY[was] else "better"
    return RuleChange.model_validate(
        {
            "rule": rule,
            "category": known.category,
            "claim": known.claim,
            "before": was,
            "after": now,
            "measured_before": before.measured if before else "not asked",
            "measured_after": after.measured if after else "not asked",
            "change": change,
            "tested": tested.measure if tested else "",
        }
    )


LEVEL = 0.05


def compare_checkups(
    checkups: Sequence[Checkup], *, names: Sequence[str] = (), level: float = LEVEL, seed: int = 0
) -> Comparison:
    """Hold every checkup after the first against the first.

    Accuracies on the same samples are tested by McNemar's exact test with Newcombe's paired interval, on different
    samples by Fisher's with Newcombe's independent one; the accuracy over ε and under image operations by a bootstrap
    over samples. A measure is better or worse where its p after Holm's correction over all tests is below ``level``.

    What is tested is these networks on images such as these; whether one recipe is better than another takes several
    seeds of each. Raises :class:`InputError` for fewer than two checkups, and for tasks of different classes.
    """
    if len(checkups) < 2:
        raise InputError("compare", expected="two checks or more", got=len(checkups))
    labels = _distinct(names or [checkup.subject.model for checkup in checkups])
    reference, *candidates = checkups
    for label, candidate in zip(labels[1:], candidates, strict=True):
        if candidate.subject.classes != reference.subject.classes:
            raise InputError(
                label,
                expected=f"a check on the classes of {labels[0]} ({_brief(reference)})",
                got=_brief(candidate),
            )
    found = [find_differences(reference, candidate, seed=seed) for candidate in candidates]
    judged = judge_together([each.differences for each in found], level=level)
    versus = tuple(
        _put_together(label, reference, candidate, each, differences)
        for label, candidate, each, differences in zip(labels[1:], candidates, found, judged, strict=True)
    )
    return Comparison(
        level=level,
        resamples=RESAMPLES,
        seed=seed,
        tests=sum(map(len, judged)),
        reference=_describe(labels[0], reference),
        candidates=tuple(_describe(label, each) for label, each in zip(labels[1:], candidates, strict=True)),
        versus=versus,
    )


def judge_together(found: Sequence[Sequence[Difference]], *, level: float) -> list[tuple[Difference, ...]]:
    """Correct all the differences together by Holm, and say of each whether it is beyond noise."""
    adjusted = iter(holm([difference.p for each in found for difference in each]))
    return [tuple(_judge(difference, next(adjusted), level=level) for difference in each) for each in found]


def _judge(difference: Difference, adjusted: float, *, level: float) -> Difference:
    change: Change = "no change beyond noise"
    if adjusted < level:
        change = "better" if difference.difference > 0 else "worse"
    return difference.model_copy(update={"adjusted": adjusted, "change": change})


def _put_together(
    label: str, reference: Checkup, candidate: Checkup, found: Found, differences: Sequence[Difference]
) -> Versus:
    rules = compare_rules(reference, candidate, {each.measure: each for each in differences})
    worse = [
        f"{each.measure}: {100 * each.reference:.1f} % to {100 * each.candidate:.1f} %, p = {each.adjusted:.2g}"
        for each in differences
        if each.change == "worse"
    ]
    worse += [
        f"{each.rule} {each.claim}: {each.before} before, {each.after} now" for each in rules if each.change == "worse"
    ]
    worse += [
        f"{each.rule} {each.claim}: judged before, did not run now" for each in rules if each.change == "not judged"
    ]
    return Versus(
        candidate=label,
        differences=tuple(differences),
        curves=tuple(found.curves),
        rules=rules,
        quantities=_pair_quantities(reference, candidate),
        left_out=tuple(found.left_out),
        unpaired=tuple(found.unpaired),
        regressions=tuple(worse),
    )


def _pair_quantities(reference: Checkup, candidate: Checkup) -> tuple[Quantity, ...]:
    after = list_quantities(candidate)
    return tuple(
        quantity.model_copy(update={"candidate": after[name].candidate})
        for name, quantity in list_quantities(reference).items()
        if name in after
    )


def _describe(label: str, checkup: Checkup) -> Compared:
    subject = checkup.subject
    return Compared(
        name=label,
        model=subject.model,
        weights=subject.weights,
        data=subject.data,
        split=subject.split,
        n=subject.n,
        available=subject.available,
        budget=checkup.budget,
        seed=checkup.seed,
        started=checkup.started,
        environment=checkup.environment,
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Every name once; a repeated one is numbered."""
    shown: list[str] = []
    for name in names:
        label, number = name, 2
        while label in shown:
            label, number = f"{name} ({number})", number + 1
        shown.append(label)
    return shown


def _brief(checkup: Checkup) -> str:
    classes = checkup.subject.classes
    return f"{len(classes)}: {', '.join(classes[:3])}" + (", …" if len(classes) > 3 else "")
