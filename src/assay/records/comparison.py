"""Two or more checks side by side: what differs beyond noise, and what does not."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Environment, Frozen, Record
from assay.records.finding import Category, Status

Change = Literal["better", "worse", "no change beyond noise"]
TestName = Literal["McNemar's exact test", "Fisher's exact test", "sign-flip test", "bootstrap"]


class Compared(Frozen):
    """One of the checks: what was tested, when, on what; ``name`` tells it apart from the others."""

    name: str
    model: str
    weights: str | None
    data: str
    split: str
    n: int
    available: int
    budget: str
    seed: int
    started: str
    environment: Environment


class Difference(Frozen):
    """One measure of the candidate minus the reference's, with a 95 % interval and a test of "no difference".

    ``p`` is two-sided, ``adjusted`` after Holm over every test of the comparison; ``change`` is judged by it alone.
    When ``paired``, ``n`` samples were seen by both, of which ``lost`` were right in the reference only and ``gained``
    in the candidate only (None for measures that are no counts of samples); else ``n`` and ``n_candidate`` samples.
    """

    measure: str
    reference: float
    candidate: float
    difference: float
    low: float
    high: float
    test: TestName
    paired: bool
    n: int
    n_candidate: int
    lost: int | None = None
    gained: int | None = None
    p: float
    adjusted: float = 1.0
    change: Change = "no change beyond noise"
    note: str = ""


class CurvePoint(Frozen):
    """Both accuracies at one epsilon, and their difference.

    ``low`` and ``high`` are a 95 % band of all points together where the samples are paired, else a 95 % interval of
    this point.
    """

    epsilon: float
    reference: float
    candidate: float
    difference: float
    low: float
    high: float


class CurveDifference(Frozen):
    """Two curves of accuracy against epsilon; ``area`` names the :class:`Difference` that judges them as a whole.

    ``median_…`` are the epsilons at which half of the samples are broken, None beyond the last point.
    """

    attack: str
    norm: Literal["linf", "l2", "l1"]
    steps: int
    area: str
    points: tuple[CurvePoint, ...]
    median_reference: float | None
    median_candidate: float | None


class RuleChange(Frozen):
    """One rule in both checks. ``change`` says what became of its status.

    ``within noise``: the status moved, but the number it rests on (``tested``) did not, beyond noise; or one of the
    checks cannot tell, and no test is about that number.
    ``not judged`` any more, or ``newly judged``: the rule ran in one of the checks only.
    """

    rule: str
    category: Category
    claim: str
    before: Status
    after: Status
    measured_before: str
    measured_after: str
    change: Literal["same", "better", "worse", "within noise", "not judged", "newly judged"]
    tested: str = ""


class Quantity(Frozen):
    """A number that has no noise to test (parameters, operations) or no per-sample form: shown, not judged."""

    name: str
    reference: float
    candidate: float
    unit: Literal["", "share", "seconds", "epsilon"] = ""


class Versus(Frozen):
    """One candidate against the reference.

    ``left_out`` says of each measure why it could not be compared; ``unpaired`` why samples could not be paired.
    ``regressions`` are the sentences that make ``--fail-on regression`` fail: measures that are worse beyond noise, or
    that the candidate's check has no more. ``worse_verdicts`` are those of ``--fail-on verdict``.
    """

    candidate: str
    differences: tuple[Difference, ...]
    curves: tuple[CurveDifference, ...]
    rules: tuple[RuleChange, ...]
    quantities: tuple[Quantity, ...]
    left_out: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    regressions: tuple[str, ...] = ()
    worse_verdicts: tuple[str, ...] = ()


class Comparison(Record):
    """Checked models compared with a reference: what ``assay.compare`` returns and ``compare.json`` holds.

    Attributes:
        level: family-wise error rate of the tests.
        resamples: bootstrap resamples, drawn from ``seed``.
        tests: the number of tests that Holm's correction is over: all measures of all candidates together.
        reference: the first check.
        candidates: the others, in the order they were given.
        versus: for each candidate its differences with intervals and p-values, verdicts side by side, regressions.
    Example:
        >>> import assay
        >>> def regressed(comparison: assay.Comparison) -> list[str]:
        ...     return [versus.candidate for versus in comparison.versus if versus.regressions]

    Reference:
        Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """

    kind: Literal["comparison"] = "comparison"
    schema_version: Literal[1] = 1
    level: float
    resamples: int
    seed: int
    tests: int
    reference: Compared
    candidates: tuple[Compared, ...]
    versus: tuple[Versus, ...]


class MeasuredShare(Proportion):
    """One accuracy of one check; ``measure`` names attack and setting, so that only equal ones make a line."""

    measure: str


class HistoryEntry(Frozen):
    """One check. ``started`` is the time recorded in it, as ISO 8601 in UTC; ``name`` is its place in the folder.

    ``statuses`` are (rule, status) of every rule that was judged. ``changes`` are its differences from the check
    before it, corrected together with all others of the history.
    """

    name: str
    started: str
    model: str
    weights: str | None
    budget: str
    assay: str
    shares: tuple[MeasuredShare, ...]
    median_epsilon: float | None
    statuses: tuple[tuple[str, Status], ...]
    accepted: int
    changes: tuple[Difference, ...] = ()


class Track(Frozen):
    """The checks of one data set and its classes, oldest first."""

    data: str
    split: str
    entries: tuple[HistoryEntry, ...]


class History(Record):
    """Every check of a folder; ``skipped`` names each file that could not be used, with the reason."""

    kind: Literal["history"] = "history"
    schema_version: Literal[1] = 1
    folder: str
    tracks: tuple[Track, ...]
    level: float
    tests: int
    claims: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...] = ()


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
