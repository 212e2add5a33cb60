"""All rules by id, and the function that judges records by each of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from assay.arguments import checked
from assay.errors import InputError
from assay.records.base import Record
from assay.records.finding import Verdict
from assay.verdict import (
    accuracy,
    attack_sanity,
    configuration,
    data_quality,
    invariance,
    optimisation,
    pixels,
    provenance,
    redundancy,
    robustness,
    saliency,
)
from assay.verdict.rule import Evidence, Rule

# The first of each pair tests on a few samples what the second tests on more; it is left out where the second ran.
TWINS = {"A211": "A501", "A212": "A502", "A213": "A504", "A217": "A204", "A223": "A503", "A225": "A206"}
_MODULES = (
    accuracy,
    provenance,
    robustness,
    attack_sanity,
    invariance,
    optimisation,
    saliency,
    configuration,
    pixels,
    redundancy,
    data_quality,
)
RULES: tuple[Rule, ...] = tuple(sorted((rule for module in _MODULES for rule in module.RULES), key=lambda r: r.id))
SEVERITY = {"error": 0, "warn": 1, "could not run": 2, "cannot tell": 3, "pass": 4, "not run": 5}


@checked
def judge(records: Iterable[Record], *, rules: Iterable[Rule] = RULES) -> tuple[Verdict, ...]:
    """Judge records by rules: thresholds on measured numbers, each with its reason and its fix.

    Rules about traces and about the sanity of an attack are left out where no such record was taken, and those that
    have a twin where the twin was judged: one fault is reported once.

    Args:
        records: what the measuring functions return, of any kinds and in any order.
        rules: those to judge by; all of them by default.
    Returns:
        One verdict for each rule: errors first, then warnings, what could not run, what cannot be told from so few
        images, passes, and rules for which there is nothing to judge ("not run").
    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)  # untrained
        >>> verdicts = assay.judge([assay.measure_clean_accuracy(model, data)])
        >>> {verdict.rule: verdict.status for verdict in verdicts}["A104"]  # finite logits
        'pass'
    """
    evidence = Evidence(records)
    applicable = (
        rule
        for rule in rules
        if not rule.on_request or all(evidence.first(kind) or evidence.failure(kind) for kind in rule.needs)
    )
    every = [rule.verdict(evidence) for rule in applicable]
    judged = {verdict.rule for verdict in every if verdict.status not in {"could not run", "not run"}}
    verdicts = [verdict for verdict in every if TWINS.get(verdict.rule) not in judged]
    return tuple(sorted(verdicts, key=lambda verdict: (SEVERITY[verdict.status], verdict.rule)))


@checked
def find_rule(rule_id: str) -> Rule:
    """The rule of this id, upper or lower case; :class:`InputError` with the nearest ids when there is none."""
    by_id = {rule.id: rule for rule in RULES}
    wanted = rule_id.strip().upper()
    if wanted not in by_id:
        near = difflib.get_close_matches(wanted, by_id, n=3, cutoff=0.5) or list(by_id)[:3]
        raise InputError("rule", expected=f"an id such as {', '.join(near)} (assay explain lists all)", got=rule_id)
    return by_id[wanted]
