"""The page of ``assay claims``: a section a claim, with its charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import altair as alt

from assay.records.claims import Axis, Chart, ClaimResult, ClaimsReport, Effect, FailedClaim, Grid, Point
from assay.report.charts import INK, SERIES, AnyChart, Row, colours, decades, figure, rules, shapes, source, tip
from assay.report.claims_wording import LOOKS, circumstances, format_value, headline, region
from assay.report.curves import Axes, Series, draw_curves, drawn_interval
from assay.report.page import Page, render
from assay.report.parts import MOST_ROWS, Figure, Table, table
from assay.report.summary import Look
from assay.wording import number, plural

ROW = 17  # pixels of height for one bar


def draw_chart(chart: Chart, *, full: bool = False) -> Figure | None:
    """The figure, with its numbers below it; ``full`` as wide as the page. None when nothing fits the axes."""
    points = [point for point in chart.points if _fits(point.y, chart.y) and _fits(point.x, chart.x)]
    names = list(dict.fromkeys(point.series for point in points))[: len(SERIES)]
    points = [point for point in points if point.series in names]
    if not points:
        return None
    note, numbers = _note(chart), _numbers(chart)
    if chart.x.scale == "names":

        def build(width: int) -> AnyChart:
            room = _room(points, width)
            height = max(90, ROW * len(points) + 26 * len({point.x for point in points}))
            return alt.layer(*_bars(chart, points, names, width)).properties(width=width - room - 14, height=height)

        legend = names if any(names) else ()
        return figure(build, finding=chart.finding, note=note, table=numbers, full=full, legend=legend)
    x_log, y_log = (axis.scale == "log" for axis in (chart.x, chart.y))
    return draw_curves(
        [_series(name, [point for point in points if point.series == name]) for name in names],
        Axes(chart.x.title, chart.y.title, y_zero=False, x_nice=True, x_log=x_log, y_log=y_log),
        finding=chart.finding,
        note=note,
        table=numbers,
        full=full,
        levels=_references(chart),
        lines=chart.mark == "line",
        legend=any(names),
    )


def _series(name: str, points: Sequence[Point]) -> Series:
    x, y = [float(point.x) for point in points], [point.y for point in points]
    lows, highs = [point.low for point in points], [point.high for point in points]
    return Series(name, x, y, lows, highs, [_tip(point) for point in points])


def _references(chart: Chart) -> list[tuple[float, str]]:
    return [(one.y, f"{one.name}: {number(one.y)}") for one in chart.references if _fits(one.y, chart.y)]


def _bars(chart: Chart, points: Sequence[Point], names: Sequence[str], width: int) -> list[alt.Chart]:
    """Names down the side, where long ones have room, and values to the right."""
    logarithmic = chart.y.scale == "log"
    rows: list[Row] = [
        {"series": point.series, "x": str(point.x), "y": point.y, "low": low, "high": high, "tip": _tip(point)}
        for point in points
        for low, high in [drawn_interval(point.y, point.low, point.high, y_log=logarithmic)]
    ]
    values = [v for p in points for v in (p.y, p.low, p.high) if v is not None and _fits(v, chart.y)]
    order = list(dict.fromkeys(str(point.x) for point in points))
    room = _room(points, width)
    y = alt.Y("x:N", title=None, sort=order, axis=alt.Axis(labelLimit=room, ticks=False, domain=False, grid=False))
    offset = alt.YOffset("series:N", sort=list(names))
    zero = chart.mark == "bars" and chart.y.scale == "linear"
    axis = decades(values) if logarithmic else alt.Axis(tickCount=5)
    axis.grid = True
    scale = alt.Scale(type="log", nice=False, padding=6) if logarithmic else alt.Scale(zero=zero, nice=True)
    x = alt.X("y:Q", title=chart.y.title, axis=axis, scale=scale)
    base = alt.Chart(source(rows)).encode(x=x, y=y, yOffset=offset, color=colours(names), description=tip())
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(shape=shapes(names))
    layers = [base.mark_bar(opacity=0.85, cornerRadiusEnd=2) if zero else dots]
    bounded = [row for row in rows if row["low"] is not None and row["high"] is not None]
    if bounded:
        whisker = alt.Chart(source(bounded)).mark_rule(strokeWidth=1.6, color=INK)
        layers.append(whisker.encode(x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset, description=tip()))
    return [*layers, rules(_references(chart), "y", along="x")]


def _room(points: Sequence[Point], width: int) -> int:
    """What the longest name takes, at most two fifths of the width."""
    return min(2 * width // 5, 7 * max(len(str(point.x)) for point in points) + 12)


def _tip(point: Point) -> str:
    named = f"{point.series}, " if point.series else ""
    where = point.x if isinstance(point.x, str) else number(point.x)
    bounded = point.low is not None and point.high is not None
    between = f" ({number(point.low)} to {number(point.high)})" if bounded else ""
    return f"{named}{where}: {number(point.y)}{between}"


def _fits(value: float | str, axis: Axis) -> bool:
    """Whether a value has a place on the axis."""
    if isinstance(value, str) or axis.scale == "names":
        return True
    return math.isfinite(value) and (value > 0 or axis.scale != "log")


def _note(chart: Chart) -> str:
    lines = dict.fromkeys((reference.name, reference.y) for reference in chart.references)
    dashed = "; ".join(f"{name}, {number(y)}" for name, y in lines)
    return " ".join(part for part in (chart.note, f"Dashed: {dashed}." if dashed else "") if part)


def _numbers(chart: Chart) -> Table | None:
    """The points in numbers; None where they are too many to be read."""
    if len(chart.points) > MOST_ROWS:
        return None
    bounded = any(point.low is not None for point in chart.points)
    several = any(point.series for point in chart.points)
    columns = [
        *(["series"] if several else []),
        f"{' ' if chart.x.scale == 'names' else '>'}{chart.x.title}",
        f">{chart.y.title}",
        *([">low", ">high"] if bounded else []),
    ]
    rows = (
        (p.series, p.x if isinstance(p.x, str) else number(p.x), number(p.y), number(p.low), number(p.high))
        for p in chart.points
    )
    return table(chart.finding, columns, (row[not several : 5 if bounded else 3] for row in rows))


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
    region: str
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
        return self.result.id

    title = id


@dataclass(frozen=True)
class FailedSection:
    """A claim that could not be measured."""

    template: ClassVar[str] = "failed_claim.html"
    failed: FailedClaim

    @property
    def id(self) -> str:
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
    tables = tuple(map(_table, result.evidence.tables))
    return ClaimSection(result, tuple(map(_effect, result.effects)), tuple(filter(None, figures)), tables)


def _effect(effect: Effect) -> ShownEffect:
    mean, low, high = (format_value(value, effect) for value in (effect.mean, effect.low, effect.high))
    return ShownEffect(effect, mean, f"{low} to {high}", region(effect), _strip(effect))


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
    texts = [
        any(isinstance(row[i], bool) or not isinstance(row[i], int | float) for row in grid.rows)
        for i in range(len(grid.columns))
    ]
    columns = [f"{' ' if text else '>'}{title}" for title, text in zip(grid.columns, texts, strict=True)]
    rows = ([cell if isinstance(cell, str) else number(cell) for cell in row] for row in grid.rows)
    return table(grid.caption, columns, rows)


def _machine(report: ClaimsReport) -> str:
    e = report.environment
    return f"assay {e.assay}, torch {e.torch}, {e.platform}, {e.processor}, {plural(e.cores, 'core')}"
