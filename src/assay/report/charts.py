"""Charts as inline SVG: drawn by Vega-Lite, coloured by the page's style sheet, with a tip on every mark that has one.

Colours are CSS variables, fonts are the page's, so one drawing serves light, dark and print. A mark's tip is its
``description`` encoding; it becomes ``data-tip``, which the page shows on hover and on touch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from xml.etree import ElementTree

import altair as alt
from markupsafe import Markup

from assay.report.parts import Figure, Table
from assay.wording import number, percent

FULL, HALF, NARROW = 900, 440, 310
SERIES = tuple(f"var(--series-{i})" for i in range(1, 7))
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
ACCENT, ALARM, INK, SOFT, GRID = "var(--series-1)", "var(--series-2)", "var(--ink)", "var(--soft)", "var(--grid)"

# 1e-5 as 10⁻⁵: Vega's expressions have no superscripts, so each digit is looked up
_POWER = (
    "'10' + replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace("
    "format(log(datum.value) / LN10, '.0f'), /[-−]/, '⁻'), /0/g, '⁰'), /1/g, '¹'), /2/g, '²'), /3/g, '³'), /4/g, '⁴'), "
    "/5/g, '⁵'), /6/g, '⁶'), /7/g, '⁷'), /8/g, '⁸'), /9/g, '⁹')"
)
Value = str | float | int | bool | None
Row = Mapping[str, Value]
AnyChart = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.VConcatChart | alt.FacetChart
_NAMESPACE = "http://www.w3.org/2000/svg"
_DROPPED = {
    "font-family", "aria-hidden", "role", "aria-roledescription", "pointer-events", "stroke-miterlimit", "class",
    "width", "height", "version", "clip-path",
}  # fmt: skip
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "view": {"stroke": None},
    "font": "sans-serif",
    "axis": {
        "labelColor": SOFT, "titleColor": SOFT, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        "gridColor": GRID, "domainColor": GRID, "tickColor": GRID, "titlePadding": 8, "labelPadding": 5,
        "labelLimit": 190, "titleAnchor": "end",
    },
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "start", "titleY": -10, "titleX": 0},
    "axisX": {"labelFlush": False},
    "text": {"fontSize": 12, "fill": INK},
    "title": {"color": INK},
}  # fmt: skip


def source(rows: Sequence[Row]) -> alt.InlineData:
    """Rows as the chart's inline data; the field ``tip`` is what a mark says when pointed at.

    A number that is not finite becomes a gap: charts have no place for it, tables do.
    """
    return alt.InlineData(values=[{name: _plain(name, value) for name, value in row.items()} for row in rows])


def _plain(name: str, value: Value) -> Value:
    if name == "tip":
        return f"tip:{value}"
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figure(
    build: Callable[[int], AnyChart],
    *,
    finding: str,
    note: str = "",
    table: Table | None = None,
    full: bool = False,
    legend: Sequence[str] = (),
) -> Figure:
    """Draw ``build(width)`` for a wide column and for a phone, and put the finding and the numbers beside it."""
    wide, narrow = (to_svg(build(width), label=finding) for width in (FULL if full else HALF, NARROW))
    return Figure(finding, wide, narrow, note, table, full, tuple(legend))


def to_svg(chart: AnyChart, *, label: str) -> Markup:
    """The chart as an SVG element whose accessible name is ``label``."""
    drawing = ElementTree.fromstring(_render(chart.to_json(indent=None, validate=False)))  # noqa: S314 - our own renderer wrote it
    _strip(drawing)
    _, _, width, height = drawing.attrib["viewBox"].split()
    drawing.set("role", "img")
    drawing.set("aria-label", label)
    drawing.set("style", f"max-width:{float(width) * 1.12:.0f}px;aspect-ratio:{width}/{height}")
    ElementTree.register_namespace("", _NAMESPACE)
    text = ElementTree.tostring(drawing, encoding="unicode")
    return Markup(text.replace(f' xmlns="{_NAMESPACE}"', ""))  # noqa: S704 - serialised, hence escaped


def _render(specification: str) -> str:
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(specification, config=_CONFIG)
    return svg


def _strip(element: ElementTree.Element) -> None:
    """Keep shapes and tips; drop what the page decides (fonts, sizes) and what a screen reader would stumble over."""
    for child in list(element):
        _strip(child)
        empty = child.tag.endswith("}g") and not len(child)
        if (
            empty
            or child.tag.endswith("}defs")
            or child.get("display") == "none"
            or child.get("d") in {"", "M0,0h0v0h0Z"}
        ):
            element.remove(child)
    label = element.attrib.pop("aria-label", "")
    root = "viewBox" in element.attrib
    for name in _DROPPED & element.attrib.keys():
        del element.attrib[name]
    if label.startswith("tip:"):
        element.set("data-tip", label.removeprefix("tip:"))
    if not root and element.get("opacity") == "1":
        del element.attrib["opacity"]


def shares(*, ticks: int = 5) -> alt.Axis:
    """An axis of shares in per cent; its title says the unit."""
    return alt.Axis(labelExpr="format(datum.value * 100, '~f')", tickCount=ticks)


def decades(values: Iterable[float]) -> alt.Axis:
    """A logarithmic axis with a tick at each power of ten, and at twos and fives where those are few."""
    exponents = [math.log10(value) for value in values]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))
    step = max(1, (high - low) // 8)
    between = (1, 2, 5) if high - low <= 2 else (1,)
    ticks = [factor * 10.0**power for power in range(low, high + 1, step) for factor in between]
    return alt.Axis(values=ticks, labelExpr=_POWER if high - low > 3 else "format(datum.value, '~g')")


def colours(names: Sequence[str]) -> alt.Color:
    """Series by name in the colours of the legend."""
    return alt.Color("series:N", sort=None, scale=alt.Scale(domain=list(names), range=list(SERIES)), legend=None)


def shapes(names: Sequence[str]) -> alt.Shape:
    """Series by name in the signs of the legend, so that colour is never alone."""
    return alt.Shape("series:N", sort=None, scale=alt.Scale(domain=list(names), range=list(SHAPES)), legend=None)


def side(names: Iterable[str], width: int) -> int:
    """The room that an axis of names needs beside a chart: what the longest takes, at most a third."""
    return min(width // 3, 7 * max(map(len, names), default=0) + 16)


def tip() -> alt.Description:
    """The encoding that gives a mark its tip, from the field ``tip``."""
    return alt.Description("tip:N")


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
