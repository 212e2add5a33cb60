"""The page of ``assay claims``: a section a claim, one offline file in the dress of the report."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass

from markupsafe import Markup

from assay.records.claims import ClaimResult, ClaimsReport, Effect, Fact, Grid
from assay.report.claims_charts import draw_chart
from assay.report.claims_wording import LOOKS, circumstances, headline, region, said
from assay.report.page import SIGNS, page_environment, page_script, page_style
from assay.report.parts import NUMBER, Column, Figure, Table
from assay.wording import number, plural, seconds

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
    """One claim, ready to be shown."""

    result: ClaimResult
    effects: tuple[ShownEffect, ...]
    facts: tuple[Fact, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    work: str


def render_claims(report: ClaimsReport) -> str:
    """The whole page as text; every name from the record is escaped and made inert."""
    environment = page_environment()
    script = page_script(environment)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    assert environment.loader is not None
    more = environment.loader.get_source(environment, "claims.css")[0]
    return environment.get_template("claims.html").render(
        report=report,
        headline=headline(report),
        circumstances=circumstances(report),
        rule=RULE,
        sections=[_section(result) for result in report.results],
        looks=LOOKS,
        signs=SIGNS,
        environment=_machine(report),
        style=Markup(page_style(environment) + more),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704 - our own file
        script_digest=digest,
    )


def _section(result: ClaimResult) -> ClaimSection:
    charts = result.evidence.charts
    # two stand side by side; an odd one out takes the whole width
    drawn = (draw_chart(chart, full=i == 0 and len(charts) % 2 == 1) for i, chart in enumerate(charts))
    return ClaimSection(
        result=result,
        effects=tuple(_effect(effect) for effect in result.effects),
        facts=result.evidence.facts,
        figures=tuple(figure for figure in drawn if figure is not None),
        tables=tuple(_table(grid) for grid in result.evidence.tables),
        work=seconds(result.seconds),
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
    columns = tuple(Column(title, NUMBER if right else "") for title, right in zip(grid.columns, numeric, strict=True))
    rows = tuple(tuple(cell if isinstance(cell, str) else number(cell) for cell in row) for row in grid.rows)
    return Table(grid.caption, columns, rows)


def _machine(report: ClaimsReport) -> str:
    e = report.environment
    return f"assay {e.assay}, torch {e.torch}, {e.platform}, {e.processor}, {plural(e.cores, 'core')}"
