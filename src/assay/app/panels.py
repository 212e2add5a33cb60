"""Each view as a piece of HTML: pictures inside, charts as SVG, every name escaped, nothing fetched."""

from __future__ import annotations

import math
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from assay.app import charts
from assay.data.pictures import png_base64, to_bytes
from assay.report.theme import custom_properties
from assay.views.breaking import Breakage
from assay.views.factoring import Factored
from assay.views.looking import Look
from assay.views.recurring import Recurrence
from assay.views.subject import Subject, about, command
from assay.wording import distance, epsilon, inert, norm, percent

SHOWN = 10  # classes with a bar


def style() -> str:
    """The style sheet of all views, light and dark."""
    return (
        _environment()
        .get_template("app.css")
        .render(light=custom_properties(dark=False), dark=custom_properties(dark=True))
    )


def show_look(subject: Subject, seen: Look) -> str:
    """Picture, input gradient, probabilities."""
    return _render(
        "look.html",
        seen=seen,
        picture=png_base64(seen.picture.image),
        small=_is_small(seen.picture.image.shape[-1]),
        rows=_bars(seen.classes, seen.probabilities),
        command=about(subject, *seen.picture.words),
    )


def show_breakage(subject: Subject, found: Breakage) -> str:
    """Before, perturbation, after; probabilities; loss per step."""
    headline = describe_breakage(found)
    told = len(found.losses) > 1 and not found.already_wrong
    chart = charts.draw_losses(found.losses, finding="Loss after each step") if told else None
    return _render(
        "break.html",
        found=found,
        headline=headline,
        pictures=(
            ("before", png_base64(found.picture.image)),
            (f"change, ×{found.magnified:g}", png_base64(to_bytes(found.perturbation))),
            ("after", png_base64(to_bytes(found.adversarial))),
        ),
        small=_is_small(found.picture.image.shape[-1]),
        rows=_bars(found.classes, found.before, found.after),
        norm=norm(found.norm),
        size=None if found.distance is None else distance(found.distance, found.norm),
        chart=chart,
        command=about(subject, *found.picture.words, *found.words),
    )


def describe_breakage(found: Breakage) -> str:
    """The finding in one sentence."""
    was, now = _top(found.before), _top(found.after)
    name = found.classes[found.target]
    if found.already_wrong:
        return f"Already wrong: it says {found.classes[was]}, not {name}. There is nothing to break."
    if not found.broken:
        reach = "" if found.epsilon is None else f" within {norm(found.norm)} {epsilon(found.epsilon, found.norm)}"
        return f"It holds: still {found.classes[now]} ({percent(found.after[now])}) after {found.attack}{reach}."
    turned = (
        f"{found.classes[was]} ({percent(found.before[was])}) became {found.classes[now]} ({percent(found.after[now])})"
    )
    assert found.distance is not None
    if found.epsilon is None:
        return f"The smallest change found is {norm(found.norm)} {distance(found.distance, found.norm)}: {turned}."
    return f"Broken: {turned}."


def show_factored(found: Factored) -> str:
    """The picture at a rank, what it costs, its spectrum, and the gauge."""
    kept, whole = found.numbers
    return _render(
        "factor.html",
        found=found,
        report=found.report,
        original=found.report.pictures[0],
        kept=kept,
        whole=whole,
        small=_is_small(found.report.columns),
        spectrum=charts.draw_ranks(found, finding="Singular values, those kept in colour"),
        gauge=charts.draw_scales(found, finding="Sharpness along the scaling c") if found.report.gauge else None,
        command=command("factor", *found.words),
    )


def show_recurrence(found: Recurrence) -> str:
    """The gradient over time between its bounds, and what they prove."""
    last = found.norms[-1]
    k = len(found.norms) - 1
    grows = "grows to" if last > 1 else "shrinks to"
    finding = (
        f"Over {k} steps the gradient {grows} {last:.2g} of its size"
        if not math.isnan(last)
        else "The gradient is zero"
    )
    return _render(
        "recurrence.html",
        found=found,
        finding=finding,
        matrix=found.matrix,
        legend=charts.LEGEND,
        chart=charts.draw_recurrence(found, finding=finding),
        rows=tuple(zip(*(points for points in _picked(found)), strict=True)),
        names=tuple(charts.series_of(found)),
        command=command("trace", *found.choice.words),
    )


def _picked(found: Recurrence) -> list[tuple[tuple[int, float], ...]]:
    """Every series at the same few k, for the table of numbers."""
    series = [dict(points) for points in charts.series_of(found).values()]
    shared = sorted(set.intersection(*(set(points) for points in series)))
    chosen = shared[:: max(1, len(shared) // 12)]
    return [tuple((k, points[k]) for k in chosen) for points in series]


def show_error(text: str) -> str:
    """One line that says what was wrong."""
    return _render("error.html", text=text)


def _bars(classes: tuple[str, ...], *columns: tuple[float, ...]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """The likeliest classes, by label where there are few; each with its probability before (and after)."""
    largest = sorted(range(len(classes)), key=lambda i: max(column[i] for column in columns), reverse=True)[:SHOWN]
    order = sorted(largest) if len(classes) <= SHOWN else largest
    return tuple((classes[i], tuple(column[i] for column in columns)) for i in order)


def _top(probabilities: tuple[float, ...]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def _is_small(width: int) -> bool:
    return width <= 128


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("assay.app"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inert"] = lambda text: inert(str(text), keep="")
    environment.filters["percent"] = lambda share: Markup(f"{100 * share:.1f}&nbsp;%")  # noqa: S704 - a number
    return environment
