"""The charts of claims: tidy rows with intervals, as lines, points or bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from assay.records.claims import Axis, Chart, Point, Reference
from assay.report.charts import (
    SERIES,
    SOFT,
    AnyChart,
    Row,
    colours,
    decades,
    figure,
    shapes,
    source,
    tip,
)
from assay.report.parts import MOST_ROWS, NUMBER, Column, Figure, Table
from assay.wording import number

MOST_SIGNS = 30  # points of one series up to which each gets its sign
ROW = 17  # pixels of height for one bar


def draw_chart(chart: Chart, *, full: bool = False) -> Figure | None:
    """The figure, with its numbers below it; ``full`` as wide as the page. None when nothing fits the axes."""
    points = [point for point in chart.points if _fits(point.y, chart.y) and _fits(point.x, chart.x)]
    names = list(dict.fromkeys(point.series for point in points))[: len(SERIES)]
    points = [point for point in points if point.series in names]
    if not points:
        return None
    sideways = chart.x.scale == "names"

    def build(width: int) -> AnyChart:
        layers = _bars(chart, points, names, width) if sideways else _curves(chart, points, names)
        room = _room(points, width) if sideways else 46
        height = max(90, ROW * len(points) + 26 * len({p.x for p in points})) if sideways else 240
        return alt.layer(*layers).properties(width=width - room - 14, height=height)

    legend = names if len(names) > 1 or any(names) else ()
    return figure(build, finding=chart.finding, note=_note(chart), table=_table(chart), full=full, legend=legend)


def _curves(chart: Chart, points: Sequence[Point], names: Sequence[str]) -> list[alt.Chart]:
    """Lines or points over an axis of numbers, a band or a whisker for each interval."""
    rows = [_row(point, chart) for point in points]
    lows = [v for p in points for v in (p.y, p.low, p.high) if v is not None and _fits(v, chart.y)]
    levels = [reference.y for reference in chart.references if _fits(reference.y, chart.y)]
    x = alt.X(
        "x:Q", title=chart.x.title, axis=_axis(chart.x, [float(p.x) for p in points], grid=False), scale=_scale(chart.x)
    )
    y = alt.Y("y:Q", title=chart.y.title, axis=_axis(chart.y, [*lows, *levels]), scale=_scale(chart.y))
    base = alt.Chart(source(rows)).encode(x=x, y=y, color=colours(names))
    bounded = [row for row in rows if row["low"] is not None and row["high"] is not None]
    layers = _levels(chart, y_axis=True)
    if chart.mark == "line":
        if bounded:
            band = alt.Chart(source(bounded)).mark_area(opacity=0.16)
            layers.append(band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colours(names)))
        layers.append(base.mark_line(strokeWidth=2).encode(description=tip()))
    elif bounded:
        whisker = alt.Chart(source(bounded)).mark_rule(strokeWidth=1.5)
        layers.append(whisker.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colours(names)))
    if len(points) <= MOST_SIGNS * len(names):
        layers.append(base.mark_point(filled=True, size=45, opacity=1).encode(shape=shapes(names), description=tip()))
    elif chart.mark == "points":
        layers.append(base.mark_point(filled=True, size=14, opacity=0.8).encode(description=tip()))
    return layers


def _bars(chart: Chart, points: Sequence[Point], names: Sequence[str], width: int) -> list[alt.Chart]:
    """Names down the side, where long ones have room, and values to the right."""
    rows = [_row(point, chart) for point in points]
    values = [v for p in points for v in (p.y, p.low, p.high) if v is not None and _fits(v, chart.y)]
    order = list(dict.fromkeys(str(point.x) for point in points))
    room = _room(points, width)
    y = alt.Y("x:N", title=None, sort=order, axis=alt.Axis(labelLimit=room, ticks=False, domain=False, grid=False))
    offset = alt.YOffset("series:N", sort=list(names))
    zero = chart.mark == "bars" and chart.y.scale == "linear"
    title = alt.X("y:Q", title=chart.y.title, axis=_axis(chart.y, values), scale=_scale(chart.y, zero=zero))
    base = alt.Chart(source(rows)).encode(x=title, y=y, yOffset=offset, color=colours(names))
    layers = []
    if zero:
        layers.append(base.mark_bar(opacity=0.85, cornerRadiusEnd=2).encode(description=tip()))
    else:
        layers.append(base.mark_point(filled=True, size=60, opacity=1).encode(shape=shapes(names), description=tip()))
    bounded = [row for row in rows if row["low"] is not None and row["high"] is not None]
    if bounded:
        whisker = alt.Chart(source(bounded)).mark_rule(strokeWidth=1.6, color="var(--ink)")
        layers.append(
            whisker.encode(x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset, description=tip()),
        )
    return [*layers, *_levels(chart, y_axis=False)]


def _room(points: Sequence[Point], width: int) -> int:
    """What the longest name takes, at most two fifths of the width."""
    return min(2 * width // 5, 7 * max(len(str(point.x)) for point in points) + 12)


def _levels(chart: Chart, *, y_axis: bool) -> list[alt.Chart]:
    """Dashed lines at the values that are named."""
    rows: list[Row] = [
        {"level": reference.y, "tip": f"{reference.name}: {number(reference.y)}"}
        for reference in chart.references
        if _fits(reference.y, chart.y)
    ]
    if not rows:
        return []
    rule = alt.Chart(source(rows)).mark_rule(color=SOFT, strokeDash=[5, 4], strokeWidth=1.3)
    place = {"y": alt.Y("level:Q")} if y_axis else {"x": alt.X("level:Q")}
    return [rule.encode(**place, description=tip())]


def _row(point: Point, chart: Chart) -> dict[str, str | float | None]:
    where = point.x if isinstance(point.x, str) else number(point.x)
    low, high = (v if v is not None and math.isfinite(v) else None for v in (point.low, point.high))
    between = "" if low is None or high is None else f" ({number(low)} to {number(high)})"
    named = f"{point.series}, " if point.series else ""
    if low is not None and chart.y.scale == "log" and low <= 0:
        low = point.y
    return {
        "series": point.series,
        "x": point.x,
        "y": point.y,
        "low": low if high is not None else None,
        "high": high if low is not None else None,
        "tip": f"{named}{where}: {number(point.y)}{between}",
    }


def _axis(axis: Axis, values: Sequence[float], *, grid: bool = True) -> alt.Axis:
    if axis.scale == "log":
        ticks = decades(values)
        ticks.grid = grid
        return ticks
    return alt.Axis(grid=grid, tickCount=5, format="~r" if not grid else alt.Undefined)


def _scale(axis: Axis, *, zero: bool = False) -> alt.Scale:
    return alt.Scale(type="log", nice=False, padding=6) if axis.scale == "log" else alt.Scale(zero=zero, nice=True)


def _fits(value: float | str, axis: Axis) -> bool:
    """Whether a value has a place on the axis."""
    if isinstance(value, str) or axis.scale == "names":
        return True
    return math.isfinite(value) and (value > 0 or axis.scale != "log")


def _note(chart: Chart) -> str:
    dashed = "; ".join(f"{reference.name}, {number(reference.y)}" for reference in _merged(chart.references))
    return " ".join(part for part in (chart.note, f"Dashed: {dashed}." if dashed else "") if part)


def _merged(references: Sequence[Reference]) -> list[Reference]:
    return list({(reference.name, reference.y): reference for reference in references}.values())


def _table(chart: Chart) -> Table | None:
    """The points in numbers; None where they are too many to be read."""
    if len(chart.points) > MOST_ROWS:
        return None
    bounded = any(point.low is not None for point in chart.points)
    several = any(point.series for point in chart.points)
    columns = [
        *([Column("series")] if several else []),
        Column(chart.x.title, "" if chart.x.scale == "names" else NUMBER),
        Column(chart.y.title, NUMBER),
        *([Column("low", NUMBER), Column("high", NUMBER)] if bounded else []),
    ]
    rows = tuple(
        (
            *((point.series,) if several else ()),
            point.x if isinstance(point.x, str) else number(point.x),
            number(point.y),
            *((number(point.low), number(point.high)) if bounded else ()),
        )
        for point in chart.points
    )
    return Table(chart.finding, tuple(columns), rows)
