"""The page of ``assay claims``: a section a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from assay.records.claims import ClaimResult, ClaimsReport, Effect, FailedClaim, Grid
from assay.report.claims_charts import draw_chart
from assay.report.claims_wording import LOOKS, circumstances, headline, region, said
from assay.report.page import Page, render
from assay.report.parts import Figure, Table, table
from assay.report.summary import Look
from assay.wording import number, plural

RULE = (
    "Differences are paired over seeds (or images, or starts). A claim names the region of their mean in which it is "
    "true, a margin of indifference away from no difference. A 95 % Student interval wholly inside that region "
    "supports it, one wholly outside refutes it, any other leaves it undecided. Several parts share the 5 % of error; "
    "one refuted part refutes the claim. What is counted or computed in closed form holds or does not."
)


@dataclass(frozen=True)
class Strip:
    """An effect on a line of its own: where the claim is true, the interval and the mean, in per cent of the width."""

    start: float
    end: float
    low: float
    high: float
    at: float
    zero: float


@dataclass(frozen=True)
class ShownEffect:
    """One effect in words, and as a strip where it is finite."""

    effect: Effect
    mean: str
    interval: str
    asked: str
    strip: Strip | None


@dataclass(frozen=True)
class ClaimSection:
    """One claim: its verdict, what decided it, its charts and its tables."""

    template: ClassVar[str] = "claim.html"
    result: ClaimResult
    effects: tuple[ShownEffect, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]

    @property
    def id(self) -> str:
        """The claim's id, which is its anchor and its name in the contents."""
        return self.result.id

    title = id


@dataclass(frozen=True)
class FailedSection:
    """A claim that could not be measured."""

    template: ClassVar[str] = "failed_claim.html"
    failed: FailedClaim

    @property
    def id(self) -> str:
        """The claim's id, which is its anchor and its name in the contents."""
        return self.failed.id

    title = id


@dataclass(frozen=True)
class ClaimList:
    """Every claim with its verdict, and the rule by which they are decided."""

    template: ClassVar[str] = "claim_list.html"
    entries: tuple[tuple[Look, str, str], ...]
    rule: str = RULE


def render_claims(report: ClaimsReport) -> str:
    """The whole page as text; every name from the record is escaped and made inert."""
    unmeasured = Look("Could not be measured", "–", "skipped")
    entries = [(LOOKS[result.verdict], result.sentence, result.id) for result in report.results]
    entries += [(unmeasured, failed.sentence, failed.id) for failed in report.failed]
    return render(
        Page(
            title=f"claims · {circumstances(report)}",
            subject=circumstances(report),
            headline=headline(report),
            before_figures=(ClaimList(tuple(entries)),),
            sections=(*map(_section, report.results), *map(FailedSection, report.failed)),
            lead_title="All claims",
            version=report.environment.assay,
            footer=f"Made by {_machine(report)}, {report.started}, from claims.json, schema {report.schema_version}.",
        )
    )


def _section(result: ClaimResult) -> ClaimSection:
    charts = result.evidence.charts
    # two stand side by side; an odd one out takes the whole width
    figures = (draw_chart(chart, full=i == 0 and len(charts) % 2 == 1) for i, chart in enumerate(charts))
    return ClaimSection(
        result,
        effects=tuple(_effect(effect) for effect in result.effects),
        figures=tuple(filter(None, figures)),
        tables=tuple(_table(grid) for grid in result.evidence.tables),
    )


def _effect(effect: Effect) -> ShownEffect:
    return ShownEffect(
        effect=effect,
        mean=said(effect.mean, effect),
        interval=f"{said(effect.low, effect)} to {said(effect.high, effect)}",
        asked=region(effect),
        strip=_strip(effect),
    )


def _strip(effect: Effect) -> Strip | None:
    """Everything on one axis (logarithmic for a ratio) from the lowest to the highest of what must be seen."""
    ratio = effect.scale == "ratio"
    if ratio and not effect.low > 0:
        return None
    low, mean, high = (math.log(v) if ratio else v for v in (effect.low, effect.mean, effect.high))
    if not all(map(math.isfinite, (low, mean, high))):
        return None
    margin = math.log(effect.margin) if ratio else effect.margin
    first, last = min(low, -margin, 0.0), max(high, margin, 0.0)
    room = 0.12 * (last - first) or 1.0
    first, last = first - room, last + room
    floor, ceiling = {
        "increase": (margin, last + room),  # what is open has no border to be seen
        "decrease": (first - room, -margin),
        "same": (-margin, margin),
        "no decrease": (-margin, last + room),
        "no increase": (first - room, margin),
    }[effect.expects]
    start, end, left, right, at, zero = (
        100 * (value - first) / (last - first) for value in (floor, ceiling, low, high, mean, 0.0)
    )
    return Strip(start, end, left, right, at, zero)


def _table(grid: Grid) -> Table:
    numeric = [
        all(isinstance(row[i], (int, float)) and not isinstance(row[i], bool) for row in grid.rows)
        for i in range(len(grid.columns))
    ]
    columns = tuple(f"{'>' if right else ' '}{title}" for title, right in zip(grid.columns, numeric, strict=True))
    rows = tuple(tuple(cell if isinstance(cell, str) else number(cell) for cell in row) for row in grid.rows)
    return table(grid.caption, columns, rows)


def _machine(report: ClaimsReport) -> str:
    e = report.environment
    return f"assay {e.assay}, torch {e.torch}, {e.platform}, {e.processor}, {plural(e.cores, 'core')}"
