"""What a rule concluded."""

from __future__ import annotations

from datetime import date
from typing import Literal

from assay.records.base import Frozen, Record

Category = Literal["accuracy", "robustness", "invariance", "optimisation", "configuration", "redundancy"]
Status = Literal["pass", "warn", "error", "not run"]
FailAt = Literal["warn", "error", "never"]


class Remedy(Frozen):
    """The number a rule judged, measured again after its fix was applied to a copy."""

    applied: str
    measured: str
    value: float


class Acceptance(Frozen):
    """A finding that somebody decided to live with: the rule, how bad it may be, why, and until when.

    ``status`` is the worst that is accepted; ``measured`` what the rule had measured then. ``expires`` is the last day
    it holds, None for always.
    """

    rule: str
    status: Literal["warn", "error"]
    reason: str
    accepted: date
    expires: date | None = None
    measured: str = ""


class Verdict(Record):
    """One rule, judged: the claim, the number against its threshold, where, why it matters, and the fix.

    ``claim`` is a sentence that is true when the status is ``pass``. ``evidence`` lists the kinds of the records the
    verdict rests on. ``value`` is NaN when nothing was measured. ``scored`` is False for a rule that judges the
    measurement, not the model: it says whether a number can be trusted, and no score rises for it. An ``accepted``
    finding is shown and does not fail.
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
    accepted: Acceptance | None = None

    def fails(self, at: FailAt) -> bool:
        """Whether it is a finding at least as bad as ``at`` that nobody accepted; at "never" nothing is."""
        return at != "never" and self.accepted is None and self.status in {"error", at}


BASELINE_VERSION: Literal[1] = 1


class Baseline(Record):
    """Accepted findings, one a rule; people edit and review this file."""

    kind: Literal["baseline"] = "baseline"
    schema_version: Literal[1] = BASELINE_VERSION
    accepted: tuple[Acceptance, ...] = ()


class Outdated(Frozen):
    """An entry of a baseline that accepts nothing in this check, and why."""

    entry: Acceptance
    because: str
