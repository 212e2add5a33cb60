"""Lines and points over two numeric axes, with bands and thresholds: most charts are of this kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import altair as alt

from assay.report import charts
from assay.report.charts import ACCENT, SERIES, AnyChart, Row, decades, figure, rules, shares, source, tip
from assay.report.parts import Figure, Table
from assay.wording import number, percent

T = TypeVar("T")
MOST_POINTS, MOST_SIGNS, MOST_IN_FAN = 400, 30, 40


@dataclass(frozen=True)
class Series:
    """Points (x, y) under one name, from left to right; ``low`` and ``high`` are the ends of their intervals."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    tips: Sequence[str] = ()


@dataclass(frozen=True)
class Axes:
    """What is drawn against what, in which units.

    ``…_shares`` are in per cent; ``…_log`` on powers of ten; ``y_zero`` has zero on the axis, ``x_nice`` round
    numbers at its ends; ``x_short`` is the title of x where there is room for few words.
    """

    x: str
    y: str
    x_log: bool = False
    y_log: bool = False
    x_shares: bool = False
    y_shares: bool = False
    y_zero: bool = True
    x_nice: bool = False
    x_short: str = ""

    def format(self, value: float) -> str:
        """A value of y as tips and tables show it."""
        return percent(value) if self.y_shares else number(value)

    def encode(self, rows: Sequence[Row], width: int, *, levels: Sequence[float] = ()) -> tuple[alt.X, alt.Y]:
        """The two position encodings; ``levels`` are further values of y that must fit."""
        values = [float(value) for row in rows for name in ("y", "low", "high") if (value := row.get(name)) is not None]
        title = self.x_short if self.x_short and width <= 400 else self.x
        if self.x_log:
            axis = decades(float(row["x"] or 0) for row in rows)
            axis.grid = False
            x = alt.X("x:Q", title=title, axis=axis, scale=alt.Scale(type="log", nice=False, padding=6))
        else:
            integers = all(float(row["x"] or 0).is_integer() for row in rows)
            step = 1 if integers else alt.Undefined
            ticks = 8 if width > 400 else 5
            axis = shares() if self.x_shares else alt.Axis(grid=False, format="~r", tickMinStep=step, tickCount=ticks)
            x = alt.X("x:Q", title=title, axis=axis, scale=alt.Scale(zero=False, nice=self.x_nice))
        if self.y_log:
            values = [value for value in (*values, *levels) if value > 0]
            wide = max(values) >= 10 * min(values)
            scale = alt.Scale(type="log") if wide else alt.Scale(type="log", nice=False, padding=6)
            return x, alt.Y("y:Q", title=self.y, axis=decades(values), scale=scale)
        if self.y_shares:
            return x, alt.Y("y:Q", title=self.y, axis=shares(), scale=alt.Scale(domain=[0, 1]))
        return x, alt.Y("y:Q", title=self.y, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=self.y_zero))

    def fits(self, x: float, y: float) -> bool:
        """Whether a point has a place on the axes."""
        return math.isfinite(x) and math.isfinite(y) and (x > 0 or not self.x_log) and (y > 0 or not self.y_log)


def epsilon_axes(norms: Collection[str], y: str, *, y_shares: bool = False) -> tuple[float, Axes]:
    """Axes against ε, in grey levels of 255 where all ``norms`` are L∞, and what an ε is multiplied by for them."""
    if set(norms) == {"linf"}:
        title, short = "ε, the largest change of a pixel (grey levels of 255)", "ε (grey levels of 255)"
        return 255, Axes(title, y, y_shares=y_shares, x_short=short)
    return 1, Axes("ε, the size of the change", y, y_shares=y_shares)


def chart_curves(
    series: Sequence[Series],
    axes: Axes,
    width: int,
    *,
    height: int = 240,
    marks: Sequence[tuple[float, str]] = (),
    levels: Sequence[tuple[float, str]] = (),
    lines: bool = True,
    places: Sequence[int] = (),
) -> AnyChart:
    """The chart that :func:`draw_curves` puts on a page; ``width`` and ``height`` are those of the plot."""
    names = [one.name for one in series]
    rows = _rows(series, axes)
    x, y = axes.encode(rows, width, levels=[level for level, _ in levels])

    def base(chosen: Sequence[Row]) -> alt.Chart:
        return alt.Chart(source(chosen)).encode(x=x, color=charts.colours(names, places), description=tip())

    few = {one.name for one in series if len(one.x) <= MOST_SIGNS}
    bounded = base([row for row in rows if row["low"] is not None]).encode(y=alt.Y("low:Q"), y2="high:Q")
    signs = charts.shapes(names, places)
    signed = base([row for row in rows if row["series"] in few]).encode(y=y, shape=signs)
    if lines:
        spans, drawn = bounded.mark_area(opacity=0.18), base(rows).encode(y=y).mark_line(strokeWidth=2.2)
    else:
        small = base([row for row in rows if row["series"] not in few]).encode(y=y, shape=signs)
        spans, drawn = bounded.mark_rule(strokeWidth=1.5), small.mark_point(filled=True, size=24, opacity=0.9)
    dots = signed.mark_point(filled=True, size=50, opacity=1)
    layers = alt.layer(rules(marks, "x"), rules(levels, "y"), spans, drawn, dots)
    return layers.properties(width=width, height=height)


def draw_curves(
    series: Sequence[Series],
    axes: Axes,
    *,
    finding: str,
    note: str = "",
    table: Table | None = None,
    full: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    levels: Sequence[tuple[float, str]] = (),
    lines: bool = True,
    places: Sequence[int] = (),
    legend: bool | None = None,
) -> Figure | None:
    """At most six series, told apart by colour and sign; None when no point has a place on the axes.

    ``marks`` and ``levels`` are dashed lines at an x and at a y, with a tip. Without ``lines`` there are points only,
    with whiskers for bands. A ``legend`` is there for more than one series unless ``legend`` decides it.
    """
    shown = series[: len(SERIES)]
    if not _rows(shown, axes):
        return None

    height = 260 if full else 240
    build = partial(chart_curves, shown, axes, height=height, marks=marks, levels=levels, lines=lines, places=places)
    legend = len(shown) > 1 if legend is None else legend
    names, signs = ([one.name for one in shown], places) if legend else ((), ())
    return figure(
        lambda width: build(width - 60), finding=finding, note=note, table=table, full=full, legend=names, places=signs
    )


def draw_fan(
    series: Sequence[Series],
    axes: Axes,
    *,
    finding: str,
    note: str,
    describe: Callable[[str], str] = str,
    height: int = 260,
    full: bool = False,
) -> Figure | None:
    """Any number of series, the first pale and the last strong; of more than forty, forty evenly spread.

    ``describe`` gives what a line says when pointed at, from its name. None when there is nothing to draw.
    """
    chosen = evenly(series, MOST_IN_FAN)
    rows = [{**row, "place": place, "tip": describe(one.name)} for place, one in chosen for row in _rows([one], axes)]
    if not rows:
        return None

    def build(width: int) -> AnyChart:
        x, y = axes.encode(rows, width)
        strength = alt.Scale(domain=[0, max(1, len(series) - 1)], range=[0.25, 1])
        opacity = alt.Opacity("place:Q", scale=strength, legend=None)
        blank = alt.Chart(source(rows))
        single = all(len(one.x) < 2 for _, one in chosen)  # a line takes two points
        dots, lines = (
            blank.mark_point(color=ACCENT, filled=True, size=36),
            blank.mark_line(color=ACCENT, strokeWidth=1.6),
        )
        chart: alt.Chart = dots if single else lines
        chart = chart.encode(x=x, y=y, detail="series:N", opacity=opacity, description=tip())
        return chart.properties(width=width - 55, height=height)

    if len(chosen) < len(series):
        note += f" Shown: {len(chosen)} of {len(series)}, evenly spread."
    return figure(build, finding=finding, note=note, full=full)


def evenly(items: Sequence[T], most: int) -> list[tuple[int, T]]:
    """At most ``most`` items with their places, evenly spread, first and last among them."""
    if len(items) <= most:
        return list(enumerate(items))
    places = sorted({round(i * (len(items) - 1) / (most - 1)) for i in range(most)})
    return [(place, items[place]) for place in places]


def _rows(series: Iterable[Series], axes: Axes) -> list[Row]:
    """The points that have a place on the axes, with their intervals and tips."""
    rows: list[Row] = []
    for one in series:
        for i, x in evenly(one.x, MOST_POINTS):
            y = one.y[i]
            if axes.fits(x, y):
                ends = (values[i] if values else None for values in (one.low, one.high))
                low, high = drawn_interval(y, *ends, y_log=axes.y_log)
                text = one.tips[i] if one.tips else f"{one.name}, {axes.x} {number(x)}: {axes.format(y)}"
                rows.append({"series": one.name, "x": float(x), "y": float(y), "low": low, "high": high, "tip": text})
    return rows


def drawn_interval(
    y: float, low: float | None, high: float | None, *, y_log: bool
) -> tuple[float | None, float | None]:
    """Both ends, or neither; on a logarithmic axis an interval that reaches zero begins at the point."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None, None
    return (y if y_log and low <= 0 else low), high
