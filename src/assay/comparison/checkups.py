"""Checks against a reference: every shared measure tested, Holm's correction over all tests, verdicts side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay.arguments import checked
from assay.comparison.differences import PairedChecks, find_differences
from assay.comparison.measures import compare_quantities
from assay.comparison.statistics import RESAMPLES, holm
from assay.errors import InputError
from assay.records.checkup import Checkup
from assay.records.comparison import Change, Compared, Comparison, Difference, RuleChange, Versus
from assay.records.failure import FailedMeasurement
from assay.records.finding import Status, Verdict
from assay.wording import status

LEVEL = 0.05  # family-wise error rate
SEVERITY: dict[Status, int] = {"pass": 0, "cannot tell": 1, "warn": 2, "error": 3}
# The start of the name of the measure whose test decides whether a rule's number changed beyond noise.
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
    """Every rule that either check judged, those that got worse first; ``differences`` by measure."""
    before = {verdict.rule: verdict for verdict in reference.verdicts}
    after = {verdict.rule: verdict for verdict in candidate.verdicts}
    order = ("worse", "not judged", "better", "within noise", "newly judged", "same")
    changes = [_compare(rule, before.get(rule), after.get(rule), differences) for rule in sorted({*before, *after})]
    return tuple(sorted(changes, key=lambda change: (order.index(change.change), change.rule)))


def _compare(
    rule: str, before: Verdict | None, after: Verdict | None, differences: Mapping[str, Difference]
) -> RuleChange:
    verdict = before or after
    assert verdict is not None
    was, now = (each.status if each else "not run" for each in (before, after))
    topic = RESTS_ON.get(rule)
    tested = next((each for name, each in differences.items() if topic and name.startswith(topic)), None)
    if was == now or not {was, now} & SEVERITY.keys():
        change = "same"
    elif now not in SEVERITY:
        change = "not judged"
    elif was not in SEVERITY:
        change = "newly judged"
    elif "cannot tell" in {was, now} if tested is None else tested.change == "no change beyond noise":
        change = "within noise"
    else:
        change = "worse" if SEVERITY[now] > SEVERITY[was] else "better"
    return RuleChange.model_validate(
        {
            "rule": rule,
            "category": verdict.category,
            "claim": verdict.claim,
            "before": was,
            "after": now,
            "measured_before": before.measured if before else "not judged",
            "measured_after": after.measured if after else "not judged",
            "change": change,
            "tested": tested.measure if tested else "",
        }
    )


@checked
def compare(
    checkups: Sequence[Checkup], *, names: Sequence[str] = (), level: float = LEVEL, seed: int = 0
) -> Comparison:
    """Test whether checked models differ beyond noise, each against the first.

    Accuracies on the same samples are tested by McNemar's exact test with Newcombe's paired interval, on different
    samples by Fisher's exact test with Newcombe's interval of independent proportions; the mean accuracy over epsilon
    and under image operations by exchanging the samples at random, or a bootstrap where they are not paired. So the
    randomness of attacks is part of the noise. The tests are about these networks on images such as
    these; whether one recipe is better than another takes several seeds of each.

    Args:
        checkups: two or more, over the same classes; the first is the reference.
        names: one for each checkup; without them the models' names, numbered where they repeat.
        level: family-wise error rate in (0, 1): a measure is better or worse where its p-value after Holm's
            correction over all tests of the comparison is below it.
        seed: of the 10,000 random exchanges or resamples.
    Returns:
        The :class:`Comparison`: for each candidate its ``differences``, verdicts side by side, and ``regressions``.
    Raises:
        InputError: fewer than two checkups, or a candidate on other classes than the reference.
    Example:
        >>> import assay
        >>> from assay.records.checkup import Subject
        >>> from assay.runtime import describe_environment
        >>> data = assay.load_dataset("digits", limit=32)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> clean = assay.measure_clean_accuracy(model, data)
        >>> checkup = assay.Checkup(
        ...     subject=Subject(model="mlp", weights=None, data="digits", split="test", n=32, available=32,
        ...                     classes=data.classes, image_shape=data.shape),
        ...     budget="quick", seed=0, started="2026-01-01", seconds=0.0, environment=describe_environment("cpu"),
        ...     stages=(), records=(clean,), verdicts=assay.judge([clean]),
        ... )  # or what assay.run_check returned
        >>> comparison = assay.compare([checkup, checkup], names=["before", "after"])
        >>> [difference.p for difference in comparison.versus[0].differences]
        [1.0]

    Reference:
        McNemar 1947, Psychometrika 12; Holm 1979, Scandinavian Journal of Statistics 6; Newcombe 1998, Statistics in
        Medicine 17, 873-890 and 2635-2650.
    """
    if len(checkups) < 2:
        raise InputError("compare", expected="two checks or more", got=len(checkups))
    labels = _distinct(names or [checkup.subject.model for checkup in checkups])
    reference, *candidates = checkups
    expected, *others = (each.subject.classes for each in checkups)
    for label, classes in zip(labels[1:], others, strict=True):
        if classes != expected:
            wanted, got = (f"{len(c)}: {', '.join(c[:3])}" + ", …" * (len(c) > 3) for c in (expected, classes))
            raise InputError(label, expected=f"a check on the classes of {labels[0]} ({wanted})", got=got)
    pairs = [find_differences(reference, candidate, seed=seed) for candidate in candidates]
    corrected = correct_together([pair.differences for pair in pairs], level=level)
    versus = tuple(
        _put_together(label, reference, candidate, pair, differences)
        for label, candidate, pair, differences in zip(labels[1:], candidates, pairs, corrected, strict=True)
    )
    return Comparison(
        level=level,
        resamples=RESAMPLES,
        seed=seed,
        tests=sum(map(len, corrected)),
        reference=_describe(labels[0], reference),
        candidates=tuple(_describe(label, each) for label, each in zip(labels[1:], candidates, strict=True)),
        versus=versus,
    )


def correct_together(families: Sequence[Sequence[Difference]], *, level: float) -> list[tuple[Difference, ...]]:
    """Holm's correction over all differences together: each with its adjusted p and whether it is beyond noise."""
    adjusted = iter(holm([difference.p for family in families for difference in family]))
    return [tuple(_decide(difference, next(adjusted), level=level) for difference in family) for family in families]


def _decide(difference: Difference, adjusted: float, *, level: float) -> Difference:
    change: Change = "no change beyond noise"
    if adjusted < level:
        change = "better" if difference.difference > 0 else "worse"
    return difference.model_copy(update={"adjusted": adjusted, "change": change})


def _put_together(
    label: str, reference: Checkup, candidate: Checkup, pair: PairedChecks, differences: Sequence[Difference]
) -> Versus:
    rules = compare_rules(reference, candidate, {each.measure: each for each in differences})
    left_out, vanished = [*pair.left_out], pair.vanished
    if "predictions" in {reference.subject.source, candidate.subject.source}:
        judged = tuple(each for each in rules if "not run" not in {each.before, each.after})
        left_out += [f"{len(rules) - len(judged)} rules: predictions alone cannot be judged by them"]
        rules, vanished = judged, []
    worse = [
        f"{each.measure}: {100 * each.reference:.1f} % to {100 * each.candidate:.1f} %, p = {each.adjusted:.2g}"
        for each in differences
        if each.change == "worse"
    ]
    worse += [f"{name}: measured before, not now" for name in vanished]
    verdicts = [
        f"{each.rule} {each.claim}: {status(each.before)} before, {status(each.after)} now"
        for each in rules
        if each.change in {"worse", "not judged"}
    ]
    return Versus(
        candidate=label,
        differences=tuple(differences),
        curves=tuple(pair.curves),
        rules=rules,
        quantities=compare_quantities(reference, candidate),
        left_out=(*left_out, *_failures("the reference", reference), *_failures(label, candidate)),
        unpaired=tuple(pair.unpaired),
        regressions=tuple(worse),
        worse_verdicts=tuple(verdicts),
    )


def _failures(label: str, checkup: Checkup) -> list[str]:
    return [f"{each.place} could not run on {label}: {each.reason}" for each in checkup.each(FailedMeasurement)]


def _describe(label: str, checkup: Checkup) -> Compared:
    subject = checkup.subject.model_dump(include={"model", "weights", "data", "split", "n", "available"})
    settings = {field: getattr(checkup, field) for field in ("budget", "seed", "started", "environment")}
    return Compared(name=label, **subject, **settings)


def _distinct(names: Sequence[str]) -> list[str]:
    labels: list[str] = []
    for name in names:
        label, number = name, 2
        while label in labels:
            label, number = f"{name} ({number})", number + 1
        labels.append(label)
    return labels
