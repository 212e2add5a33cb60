"""The verdicts of two checks, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping

from assay.records.checkup import Checkup
from assay.records.comparison import Difference, RuleChange
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
