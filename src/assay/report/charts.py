"""Charts as inline SVG: drawn by Vega-Lite, coloured by the page's style sheet, with a tip on every mark that has one.

Colours are CSS variables, fonts are the page's, so one drawing serves light, dark and print. A mark's tip is its
``description`` encoding; it becomes ``data-tip``, which the page shows on hover and on touch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair as alt
from markupsafe import Markup

from assay.files import write_atomically
from assay.report.parts import Figure, Table
from assay.report.theme import COLOURS
from assay.wording import distinct

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

# on a chart that stands alone, outside a page
_ALONE: dict[str, Any] = {
    "background": "var(--card)",
    "padding": 16,
    "legend": {"labelFontSize": 12, "labelColor": INK, "title": None, "symbolStrokeWidth": 2.5, "labelLimit": 260},
    "title": {"anchor": "start", "fontSize": 15, "color": INK, "subtitleColor": SOFT, "subtitleFontSize": 12},
}


def source(rows: Sequence[Row]) -> alt.InlineData:
    """Rows as the chart's inline data; the field ``tip`` is what a mark says when pointed at.

    A number that is not finite becomes a gap: charts have no place for it, tables do.
    """
    # Altair copies lists and dictionaries for every layer of a chart, a tuple it takes as it is.
    return alt.InlineData(values=tuple({name: _plain(name, value) for name, value in row.items()} for row in rows))


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
    places: Sequence[int] = (),
) -> Figure:
    """Draw ``build(width)`` for a wide column and for a phone, and put the finding and the numbers beside it."""
    wide, narrow = (to_svg(build(width), label=finding) for width in (FULL if full else HALF, NARROW))
    return Figure(finding, wide, narrow, note, table, full, tuple(legend), tuple(places))


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


@lru_cache(maxsize=128)  # the page of a check is drawn again with its fixes, and most of its charts are the same
def _render(specification: str) -> str:
    import vl_convert

    return vl_convert.vegalite_to_svg(specification, config=_CONFIG)


def save_chart(chart: AnyChart, path: Path, *, scale: float = 2.0) -> None:
    """Write a chart on its own, in light colours, as ``.svg`` or, magnified ``scale`` times, as ``.png``."""
    import vl_convert

    specification = {**chart.to_dict(), "config": {**_CONFIG, **_ALONE, "axisY": {}}}
    text = re.sub(r"var\(--([\w-]+)\)", lambda match: COLOURS[match[1]][0], json.dumps(specification))
    if path.suffix == ".svg":
        write_atomically(path, vl_convert.vegalite_to_svg(text))
    else:
        write_atomically(path, vl_convert.vegalite_to_png(text, scale=scale))


def _strip(element: ElementTree.Element) -> None:
    """Keep shapes and tips; drop what the page decides (fonts, sizes) and what a screen reader would stumble over."""
    for child in list(element):
        _strip(child)
        empty = (child.tag.endswith("}g") and not len(child)) or child.get("d") in {"", "M0,0h0v0h0Z"}
        if empty or child.tag.endswith("}defs") or child.get("display") == "none":
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


def colours(names: Sequence[str], places: Sequence[int] = ()) -> alt.Color:
    """Series by name in the colours of the legend, those numbered ``places`` from 1 where they are not 1, 2, 3 …."""
    return alt.Color("series:N", sort=None, scale=_scale(names, places, SERIES), legend=None)


def shapes(names: Sequence[str], places: Sequence[int] = ()) -> alt.Shape:
    """Series by name in the signs of the legend, so that colour is never alone."""
    return alt.Shape("series:N", sort=None, scale=_scale(names, places, SHAPES), legend=None)


def _scale(names: Sequence[str], places: Sequence[int], palette: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[palette[place - 1] for place in places] or list(palette))


def rules(places: Sequence[tuple[float, str]], field: str, *, along: str = "") -> alt.Chart:
    """Dashed lines across a chart at values of ``field``, each with a tip; ``along`` is their axis, else the field."""
    chart: alt.Chart = alt.Chart(source([{field: place, "tip": text} for place, text in places]))
    chart = chart.mark_rule(color=SOFT, strokeDash=[4, 3], strokeWidth=1.3)
    return chart.encode(**{along or field: f"{field}:Q"}, description=tip())


def side(names: Iterable[str], width: int) -> int:
    """The room that an axis of names needs beside a chart: what the longest takes, at most a third."""
    return min(width // 3, 7 * max(map(len, names), default=0) + 16)


def fit(names: Sequence[str], room: int) -> list[str]:
    """Distinct names as short as a room of :func:`side` needs them: the page's font is wider than some."""
    return distinct(names, length=max(8, (room - 16) // 7))


def tip() -> alt.Description:
    """The encoding that gives a mark its tip, from the field ``tip``."""
    return alt.Description("tip:N")


@dataclass(frozen=True)
class Item:
    """A value under a name, the ends of its interval, and the value ``before`` where there is one."""

    name: str
    value: float
    tip: str
    low: float | None = None
    high: float | None = None
    before: float | None = None
    kind: str = ""


def draw_items(
    items: Sequence[Item],
    title: str,
    *,
    share: bool = True,
    domain: tuple[float, float] | None = (0, 1),
    kinds: Mapping[str, tuple[str, str]] | None = None,
    reference: tuple[float, str] | None = None,
    limits: Sequence[tuple[float, str]] = (),
    step: int = 26,
    above: bool = False,
) -> Callable[[int], AnyChart]:
    """For :func:`figure`: a mark on its interval for each item, from top to bottom; a ring is the value before.

    ``title`` is that of the axis, of shares in per cent or of numbers; without a ``domain`` it fits them. ``kinds``
    gives each kind of item its colour and sign. ``reference`` and ``limits`` are dashed lines. Long names stand
    ``above`` their rows.
    """
    paired = any(item.before is not None for item in items)
    looks = kinds or {"": (ALARM, "diamond") if paired else (ACCENT, "circle")}
    colour, sign = (alt.Scale(domain=list(looks), range=[look[i] for look in looks.values()]) for i in (0, 1))
    every_name = [item.name for item in items]

    def build(width: int) -> AnyChart:
        room = 10 if above else side(every_name, width)
        titles = fit(every_name, width if above else room)
        rows = source([{**vars(item), "name": title} for item, title in zip(items, titles, strict=True)])
        beside: dict[str, Any] = {"labelAlign": "left", "labelOffset": -17, "labelPadding": 0, "domain": False}
        placed = beside if above else {"minExtent": room}
        names = alt.Axis(grid=False, ticks=False, labelLimit=width if above else room, **placed)
        base = alt.Chart(rows).encode(y=alt.Y("name:N", sort=None, title=None, axis=names), description=tip())
        toned = base.encode(color=alt.Color("kind:N", scale=colour, legend=None))
        scale = (
            alt.Scale(domain=domain) if domain else alt.Scale(zero=not share, domainMax=1 if share else alt.Undefined)
        )
        axis = shares() if share else alt.Axis(tickCount=6 if width > 400 else 4)
        x = alt.X("value:Q", title=title, scale=scale, axis=axis)
        layers: list[alt.Chart] = [rules([*([reference] if reference else []), *limits], "value", along="x")]
        if paired:
            ring = base.mark_point(color=ACCENT, filled=False, size=80, strokeWidth=2, opacity=1).encode(x="before:Q")
            layers += [base.mark_rule(color=SOFT, strokeWidth=1.8, opacity=0.7).encode(x=x, x2="before:Q"), ring]
        if any(item.low is not None for item in items):
            interval = toned.mark_rule(strokeWidth=5, opacity=0.33, strokeCap="round")
            layers.append(interval.encode(x=alt.X("low:Q", scale=scale), x2="high:Q"))
        mark = toned.mark_point(filled=True, size=80, opacity=1)
        layers.append(mark.encode(x=x, shape=alt.Shape("kind:N", scale=sign, legend=None)))
        return alt.layer(*layers).properties(width=width - room - (0 if above else 14), height=alt.Step(step))

    return build
