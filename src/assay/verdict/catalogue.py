"""All rules, by id, and the judge that asks each of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from assay.errors import InputError
from assay.records.base import Record
from assay.records.finding import Verdict
from assay.verdict import (
    accuracy,
    attack_sanity,
    configuration,
    invariance,
    optimisation,
    redundancy,
    robustness,
    traces,
)
from assay.verdict.rule import Evidence, Rule

ON_REQUEST = (*attack_sanity.RULES, *traces.RULES)  # judged only where their records were taken
# The first of each pair asks of a few samples what the second asks of more, and keeps silent where that was judged.
TWINS = {"A211": "A501", "A212": "A502", "A213": "A504", "A217": "A204", "A223": "A503", "A225": "A206"}
RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            *accuracy.RULES,
            *robustness.RULES,
            *invariance.RULES,
            *optimisation.RULES,
            *configuration.RULES,
            *redundancy.RULES,
            *ON_REQUEST,
        ),
        key=lambda rule: rule.id,
    )
)
SEVERITY = {"error": 0, "warn": 1, "pass": 2, "not run": 3}


def judge(records: Iterable[Record], *, rules: Iterable[Rule] = RULES) -> tuple[Verdict, ...]:
    """Hold the records against every rule: errors first, then warnings, passes, and what could not be judged.

    Rules about traces and about an attack's own sanity are left out where no such record was taken, and those that
    have a twin (:data:`TWINS`) where it was judged: one fault is told once.
    """
    evidence = Evidence(records)
    asked = (r for r in rules if r not in ON_REQUEST or all(evidence.first(need) for need in r.needs))
    every = [rule.verdict(evidence) for rule in asked]
    judged = {verdict.rule for verdict in every if verdict.status != "not run"}
    verdicts = [verdict for verdict in every if TWINS.get(verdict.rule) not in judged]
    return tuple(sorted(verdicts, key=lambda verdict: (SEVERITY[verdict.status], verdict.rule)))


def find_rule(rule_id: str) -> Rule:
    """The rule of this id, upper or lower case; :class:`InputError` with the nearest ids when there is none."""
    by_id = {rule.id: rule for rule in RULES}
    wanted = rule_id.strip().upper()
    if wanted not in by_id:
        near = difflib.get_close_matches(wanted, by_id, n=3, cutoff=0.5) or list(by_id)[:3]
        raise InputError("rule", expected=f"an id such as {', '.join(near)} (assay explain lists all)", got=rule_id)
    return by_id[wanted]
