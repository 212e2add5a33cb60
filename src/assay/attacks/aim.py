"""The same attack, made to reach a class of the attacker's choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from assay.attacks.batch import Method
from assay.attacks.losses import (
    AttackLoss,
    cross_entropy,
    dlr,
    margin,
    probability_margin,
    target_lead,
    targeted_cross_entropy,
    targeted_dlr,
)
from assay.attacks.options import AttackPlan

_TOWARDS: Mapping[AttackLoss, AttackLoss] = MappingProxyType(
    {cross_entropy: targeted_cross_entropy, margin: target_lead, probability_margin: target_lead, dlr: targeted_dlr}
)


def aim(plan: AttackPlan) -> AttackPlan:
    """``plan`` with every loss turned towards the goal, and methods that differ by their target alone only once."""
    seen: list[Method[Any]] = []
    optional_from = plan.optional_from
    for position, method in enumerate(plan.methods):
        if (getattr(method, "rank", None) or 2) > 2:
            optional_from -= position < plan.optional_from
            continue
        own = {field.name for field in fields(method)}  # type: ignore[arg-type]
        changes: dict[str, object] = {}
        if "loss" in own:
            changes["loss"] = _TOWARDS.get(method.loss, method.loss)
        if "aimed" in own:
            changes["aimed"] = True
        seen.append(replace(method, **changes))  # type: ignore[type-var]
    return replace(plan, methods=tuple(seen), optional_from=optional_from)
