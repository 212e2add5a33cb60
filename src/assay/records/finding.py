"""What a rule concluded."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record

Category = Literal["accuracy", "robustness", "invariance", "optimisation", "configuration", "redundancy"]
Status = Literal["pass", "warn", "error", "not run"]


class Remedy(Frozen):
    """The number a rule judged, measured again after its fix was applied to a copy."""

    applied: str
    measured: str
    value: float


class Verdict(Record):
    """One rule, judged: the claim, the number against its threshold, where, why it matters, and the fix.

    ``claim`` is a sentence that is true when the status is ``pass``. ``evidence`` lists the kinds of the records the
    verdict rests on. ``value`` is NaN when nothing was measured. ``scored`` is False for a rule that judges the
    measurement, not the model: it says whether a number can be trusted, and no score rises for it.
    """

    kind: Literal["verdict"] = "verdict"
    rule: str
    category: Category
    status: Status
    claim: str
    measured: str
    threshold: str
    value: float
    where: str = ""
    why: str
    fix: str
    reference: str
    evidence: tuple[str, ...]
    scored: bool = True
    remedy: Remedy | None = None
