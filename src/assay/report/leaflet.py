"""A page about one thing: a finding, a few numbers, and sections of text, charts, pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from assay.report.charts import AnyChart, to_svg
from assay.report.theme import custom_properties


@dataclass(frozen=True)
class Drawn:
    """A chart, what it shows, and the names of its colours."""

    finding: str
    drawing: Markup
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table of text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Shown:
    """A picture under its rank."""

    title: str
    note: str
    png: str


@dataclass(frozen=True)
class Part:
    """One section of the page."""

    title: str
    text: str
    figures: tuple[Drawn, ...] = ()
    table: Grid | None = None
    pictures: tuple[Shown, ...] = ()


def render_leaflet(
    *,
    title: str,
    headline: str,
    subject: str,
    good: bool,
    stamp: str,
    text: str,
    tiles: Sequence[tuple[str, str]],
    sections: Sequence[Part],
) -> str:
    """The whole page as text; every name is escaped, nothing is fetched. ``good`` colours the ``stamp``."""
    environment = Environment(
        loader=PackageLoader("assay.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("leaflet.html").render(
        title=title,
        headline=headline,
        subject=subject,
        good=good,
        stamp=stamp,
        text=text,
        tiles=tiles,
        sections=sections,
        light=Markup(custom_properties(dark=False)),  # noqa: S704 - our own colours
        dark=Markup(custom_properties(dark=True)),  # noqa: S704 - our own colours
    )


def drawn(chart: AnyChart, finding: str, *, note: str = "", legend: tuple[tuple[str, str], ...] = ()) -> Drawn:
    """A chart with its finding."""
    return Drawn(finding, to_svg(chart, label=finding), note, legend)
