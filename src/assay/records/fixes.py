"""What a mechanical fix did: the rule judged again, and everything else that moved."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record
from assay.records.comparison import Difference
from assay.records.finding import Status


class Reading(Frozen):
    """One number before and after a fix that no test of samples applies to."""

    name: str
    before: float
    after: float
    unit: Literal["", "share"] = ""


class AppliedFix(Record):
    """A fix applied to a copy of the model, and measured again on the same samples.

    ``applied`` says what was done and on which images. ``refused`` is empty, or says why the fix was not applied;
    then nothing was measured. ``effects`` are paired tests, the fixed copy against the model, corrected by Holm within
    this fix. ``changes`` says what the fix is about: the weights, the mode the model is handed over in, or only
    how it is to be trained. ``weights`` is the file of the fixed copy beside the report, empty where none was written.
    """

    kind: Literal["applied_fix"] = "applied_fix"
    rule: str
    fix: str
    changes: Literal["weights", "mode", "training"]
    applied: str
    refused: str = ""
    before: Status
    after: Status
    measured_before: str
    measured_after: str
    effects: tuple[Difference, ...] = ()
    readings: tuple[Reading, ...] = ()
    weights: str = ""
    seconds: float
