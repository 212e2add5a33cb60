"""Line charts: a few named series in colours and signs of their own, or a fan of many, pale to strong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import altair as alt

from assay.report.drawing import (
    ACCENT,
    SERIES,
    SOFT,
    AnyChart,
    Row,
    colours,
    decades,
    figure,
    shapes,
    shares,
    source,
    tip,
)
from assay.report.parts import Figure, Table
from assay.report.wording import number, percent

T = TypeVar("T")
MOST_POINTS, MOST_SIGNS, MOST_IN_FAN = 400, 30, 40


@dataclass(frozen=True)
class Series:
    """Points (x, y) under one name, from left to right."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axes:
    """What is drawn against what, in which units; ``…_shares`` in per cent, ``y_log`` on powers of ten."""

    x: str
    y: str
    y_log: bool = False
    y_shares: bool = False
    x_shares: bool = False

    def say(self, value: float) -> str:
        """A value of y as tips and tables show it."""
        return percent(value) if self.y_shares else number(value)

    def encode(self, values: Iterable[float]) -> tuple[alt.X, alt.Y]:
        """The two position encodings; ``values`` are those of y, for the ticks of a logarithmic axis."""
        along = shares() if self.x_shares else alt.Axis(grid=False, format="~r", tickMinStep=1)
        x = alt.X("x:Q", title=self.x, axis=along, scale=alt.Scale(zero=False, nice=False))
        if self.y_log:
            return x, alt.Y("y:Q", title=self.y, axis=decades(values), scale=alt.Scale(type="log"))
        if self.y_shares:
            return x, alt.Y("y:Q", title=self.y, axis=shares(), scale=alt.Scale(domain=[0, 1]))
        return x, alt.Y("y:Q", title=self.y, axis=alt.Axis(tickCount=5))

    def fits(self, value: float) -> bool:
        """Whether a value has a place on the axis."""
        return math.isfinite(value) and (value > 0 or not self.y_log)


def draw_curves(
    series: Sequence[Series],
    axes: Axes,
    *,
    finding: str,
    note: str = "",
    table: Table | None = None,
    full: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Figure | None:
    """At most six series, told apart by colour and sign; ``marks`` are dashed lines at an x with a tip.

    None when no point has a place on the axes.
    """
    shown = series[: len(SERIES)]
    names = [one.name for one in shown]
    rows = _rows(shown, axes)
    if not rows:
        return None

    def build(width: int) -> AnyChart:
        x, y = axes.encode(row["y"] for row in rows if isinstance(row["y"], float))
        base = alt.Chart(source(rows)).encode(x=x, y=y, color=colours(names), description=tip())
        layers: list[alt.Chart] = [base.mark_line(strokeWidth=2)]
        if marks:
            dashed = alt.Chart(source([{"x": at, "tip": text} for at, text in marks]))
            layers.insert(0, dashed.mark_rule(color=SOFT, strokeDash=[4, 3]).encode(x="x:Q", description=tip()))
        if len(rows) <= MOST_SIGNS * len(names):
            layers.append(base.mark_point(filled=True, size=45, opacity=1).encode(shape=shapes(names)))
        return alt.layer(*layers).properties(width=width - 60, height=260 if full else 220)

    legend = names if len(names) > 1 else ()
    return figure(build, finding=finding, note=note, table=table, full=full, legend=legend)


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
        x, y = axes.encode(row["y"] for row in rows if isinstance(row["y"], float))
        strength = alt.Scale(domain=[0, max(1, len(series) - 1)], range=[0.25, 1])
        chart: alt.Chart = (
            alt.Chart(source(rows))
            .mark_line(color=ACCENT, strokeWidth=1.6)
            .encode(
                x=x,
                y=y,
                detail="series:N",
                opacity=alt.Opacity("place:Q", scale=strength, legend=None),
                description=tip(),
            )
            .properties(width=width - 55, height=height)
        )
        return chart

    if len(chosen) < len(series):
        note += f" Shown: {len(chosen)} of {len(series)}, evenly spread."
    return figure(build, finding=finding, note=note, full=full)


def evenly(items: Sequence[T], most: int) -> list[tuple[int, T]]:
    """At most ``most`` items with their places, evenly spread, first and last among them."""
    if len(items) <= most:
        return list(enumerate(items))
    places = sorted({round(i * (len(items) - 1) / (most - 1)) for i in range(most)})
    return [(place, items[place]) for place in places]


def _rows(series: Sequence[Series], axes: Axes) -> list[Row]:
    return [
        {"series": one.name, "x": x, "y": float(y), "tip": f"{one.name}, {axes.x} {number(x)}: {axes.say(y)}"}
        for one in series
        for _, (x, y) in evenly(list(zip(one.x, one.y, strict=True)), MOST_POINTS)
        if axes.fits(y)
    ]
