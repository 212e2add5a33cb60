"""Verdicts of rules, and findings that were accepted."""

from __future__ import annotations

import re
from datetime import date
from typing import Literal, Self

from assay.records.base import Frozen, Record

Category = Literal[
    "accuracy", "robustness", "invariance", "optimisation", "configuration", "redundancy", "data quality"
]
Status = Literal["pass", "warn", "error", "cannot tell", "could not run", "not run"]
FailAt = Literal["warn", "error", "never"]


class Remedy(Frozen):
    """The number of a rule, measured again after its fix was applied to a copy of the model."""

    applied: str
    measured: str
    value: float


class Acceptance(Frozen):
    """A finding accepted by somebody: the rule, the worst status that is accepted, why, and until when.

    ``status`` is the worst that is accepted; ``measured`` what the rule had measured then. ``expires`` is the
    last day it is valid, None for always.
    """

    rule: str
    status: Literal["warn", "error"]
    reason: str
    accepted: date
    expires: date | None = None
    measured: str = ""


class Verdict(Record):
    """The result of one rule: its claim, the measured number against its threshold, and the fix.

    Attributes:
        rule: its id, such as ``A201``.
        category: one of seven; each has a score, except that the quality of data is none of the model.
        status: ``pass``, ``warn``, ``error``, ``cannot tell`` (the interval of the number contains the threshold),
            ``could not run`` (what it rests on was asked for and failed) or ``not run`` (nothing here that it applies
            to).
        claim: a sentence that is true when the status is ``pass``.
        measured: the number in words, with its interval and sample size where it has them.
        threshold: what is required.
        value: the number; NaN when nothing was measured.
        where: the layer, class or attack it was measured at.
        why: why it matters.
        fix: what to do about it.
        fault: what is true when the status is ``warn`` or ``error``, in the field's term, with the number.
        command: the command that shows it.
        mend: the command, or a few lines of code, that mend it.
        reference: the paper or standard behind the rule.
        evidence: the kinds of the records it rests on.
        scored: False for a rule about the measurement, not the model; no score rises for it.
        remedy: the number measured again after a fix.
        accepted: the entry of the baseline that accepts this finding; it is shown and does not fail.

    Example:
        >>> import assay
        >>> verdicts = assay.judge([])
        >>> {verdict.status for verdict in verdicts}
        {'not run'}
        >>> any(verdict.fails("warn") for verdict in verdicts)
        False
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
    fault: str = ""
    command: str = ""
    mend: str = ""
    reference: str
    evidence: tuple[str, ...]
    scored: bool = True
    remedy: Remedy | None = None
    accepted: Acceptance | None = None

    @property
    def statement(self) -> str:
        """What was found: ``fault`` for a finding, else ``claim``, which is what was asked."""
        return self.fault if self.fault and self.status in {"warn", "error"} else self.claim

    def name_inputs(self, *, model: str, data: str, both: str) -> Self:
        """With the model and the data of a check, as on a command line, in ``command`` and ``mend``."""
        names = {"MODEL --data DATA": both, "MODEL": model, "DATA": data}

        def fill(text: str) -> str:
            return re.sub(r"\bMODEL --data DATA\b|\bMODEL\b|\bDATA\b", lambda match: names[match[0]], text)

        return self.model_copy(update={"command": fill(self.command), "mend": fill(self.mend)})

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
