"""A textbook statement, what was measured about it, and what that says."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Environment, Frozen, Record

ClaimStatus = Literal["supported", "refuted", "undecided"]
Expectation = Literal["increase", "decrease", "same", "no decrease", "no increase"]
BudgetName = Literal["tiny", "quick", "full"]


class ClaimSample(Frozen):
    """Paired differences, one a seed (or an image, or a start), and what the claim expects of their mean μ.

    ``margin`` m ≥ 0 is the margin of indifference, in ``unit``: the claim says μ > m (``increase``), μ < −m
    (``decrease``), |μ| < m (``same``), μ > −m (``no decrease``) or μ < m (``no increase``). With ``scale`` ``ratio``
    the values are quotients > 0, their logarithms take the place of the differences, and m ≥ 1 is a factor.
    With ``decides`` False the effect is shown, and the verdict does not rest on it.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    over: str = "seeds"
    expects: Expectation
    margin: float
    scale: Literal["difference", "ratio"] = "difference"
    decides: bool = True


class ClaimFact(Frozen):
    """Something counted or computed in closed form, that holds or does not; no seed can change it."""

    name: str
    expected: str
    got: str
    holds: bool
    decides: bool = True


class Axis(Frozen):
    """A title with its unit, and the scale. An x axis of names, not numbers, is ``names``."""

    title: str
    scale: Literal["linear", "log", "names"] = "linear"


class Point(Frozen):
    """One mark: ``low`` and ``high`` bound its interval, if it has one; what is not finite becomes a gap."""

    series: str = ""
    x: float | str
    y: float
    low: float | None = None
    high: float | None = None


class Reference(Frozen):
    """A horizontal line at ``y``, named."""

    y: float
    name: str


class Chart(Frozen):
    """Tidy rows and how to draw them; ``finding`` is the title and says what is to be seen.

    ``line`` joins the points of a series, with a band for the interval; ``points`` does not join them; ``bars`` stand
    on zero, side by side within one x. At most six series. ``note`` tells how to read it.
    """

    finding: str
    mark: Literal["line", "points", "bars"]
    x: Axis
    y: Axis
    points: tuple[Point, ...]
    references: tuple[Reference, ...] = ()
    note: str = ""


class Grid(Frozen):
    """A table: text and numbers under titled columns."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int, ...], ...]


class ClaimEvidence(Frozen):
    """What one claim's experiment gives back: numbers, not a verdict.

    ``how`` tells in one or two sentences what was measured, on what, with the numbers of this run in it.
    ``notes`` are what a reader should know beside the verdict.
    """

    how: str
    samples: tuple[ClaimSample, ...] = ()
    facts: tuple[ClaimFact, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Grid, ...] = ()
    notes: tuple[str, ...] = ()


class Effect(Frozen):
    """A :class:`ClaimSample`, weighed: its mean (geometric for a ratio), its interval and what that says."""

    name: str
    unit: str
    over: str
    n: int
    mean: float
    low: float
    high: float
    confidence: float
    expects: Expectation
    margin: float
    scale: Literal["difference", "ratio"]
    decides: bool
    outcome: ClaimStatus


class ClaimResult(Record):
    """One claim, measured and judged.

    ``verdict`` rests on the effects and facts that decide: refuted when one of them is, supported when all are.
    ``because`` is that in one sentence. ``evidence`` holds every number the effects were computed from.
    """

    kind: Literal["claim_result"] = "claim_result"
    id: str
    sentence: str
    decides: str
    would_change: str
    references: tuple[str, ...]
    budget: BudgetName
    data: str
    seed: int
    evidence: ClaimEvidence
    effects: tuple[Effect, ...]
    verdict: ClaimStatus
    because: str
    seconds: float


class FailedClaim(Frozen):
    """A claim whose experiment ended in an error."""

    id: str
    sentence: str
    error: str


class ClaimsReport(Record):
    """All the claims of one run, in the order they were asked for; what ``claims.json`` holds.

    ``model`` is the user's own, where one was handed in for the claims about trained networks.
    """

    kind: Literal["claims_report"] = "claims_report"
    schema_version: Literal[1] = 1
    started: str
    budget: BudgetName
    data: str
    model: str | None = None
    seed: int
    environment: Environment
    results: tuple[ClaimResult, ...]
    failed: tuple[FailedClaim, ...] = ()
    seconds: float
