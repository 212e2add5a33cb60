"""Each view as a piece of HTML: pictures inside, charts as SVG, every name escaped, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import altair as alt
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from torch import Tensor

from assay.data.pictures import LARGEST_PNG, png_base64, to_bytes, webp_base64
from assay.records.factorization import GaugePoint
from assay.report.charts import ALARM, SERIES, SOFT, Row, colours, decades, source, tip, to_svg
from assay.report.curves import Axes, Series, chart_curves
from assay.report.factor_charts import chart_gauge, chart_spectrum
from assay.report.theme import custom_properties
from assay.views.attack import PictureAttack
from assay.views.context import ViewContext, command, look_command
from assay.views.explanation import PictureMap
from assay.views.factorization import FactoredPicture
from assay.views.picture import Prediction
from assay.views.recurrence import Recurrence
from assay.views.samples import FoundSamples
from assay.wording import distance, inert, norm, percent, picture_url

SHOWN = 10  # classes with a bar
WIDTH = 400  # of the charts: suits a phone and a column alike
_LARGEST = 704  # pixels of a side that are sent: two a point of the widest picture on the page
_TILE = 128  # of a thumbnail, the same
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_DECADES = 12.0  # beyond this many powers of ten from 1 a curve leaves the chart


def head() -> str:
    """What every page of the app has in its head: the style sheet of all views, light and dark, and the script."""
    return f"<style>{style()}</style><script>{_source('app.js')}</script>"


def style() -> str:
    """The style sheet of all views, light and dark."""
    template = _environment().get_template("app.css")
    return template.render(light=custom_properties(dark=False), dark=custom_properties(dark=True))


def show_header(context: ViewContext) -> str:
    """The name of the project, of the model and of the data, and the choice of colours."""
    return _render("header.html", name=context.name, data=context.dataset.name)


def show_picture(prediction: Prediction) -> str:
    """What stays in view: the picture, its input gradient, and what the model says."""
    image = prediction.picture.image
    return _render(
        "picture.html", prediction=prediction, picture=_encode(image), small=max(image.shape[1:]) <= LARGEST_PNG
    )


def show_prediction(context: ViewContext, prediction: Prediction) -> str:
    """Probabilities, the loss, and the command."""
    return _render(
        "prediction.html",
        prediction=prediction,
        rows=_bars(prediction.classes, prediction.probabilities),
        numbers=_numbers(("class", "probability"), prediction.classes, prediction.probabilities),
        command=look_command(context, *prediction.picture.words),
    )


def show_samples(context: ViewContext, found: FoundSamples, *, what: str) -> str:
    """Thumbnails of samples to choose from, and the way to those before and after them; ``what`` names them."""
    data = context.dataset
    side = max(data.shape[1:])
    return _render(
        "samples.html",
        found=found,
        what=what,
        classes=context.classes,
        small=side <= LARGEST_PNG,
        tiles=[(sample, webp_base64(data.images[sample.place], largest=_TILE, quality=80)) for sample in found.samples],
    )


def show_attack(context: ViewContext, attack: PictureAttack) -> str:
    """Before, perturbation, after (of an attack that failed its best attempt); probabilities; loss per step."""
    last = "after" if attack.success else attack.attempt.partition(" of ")[0].removeprefix("the ")
    return _render(
        "attack.html",
        attack=attack,
        pictures=(
            ("before", _encode(attack.picture.image)),
            (f"perturbation, ×{attack.magnified:g}", _encode(to_bytes(attack.perturbation))),
            (last, _encode(to_bytes(attack.adversarial))),
        )
        if not attack.misclassified
        else (),
        small=max(attack.picture.image.shape[1:]) <= LARGEST_PNG,
        rows=_bars(attack.classes, attack.before, attack.after),
        norm=norm(attack.norm),
        moved=distance(attack.moved, attack.norm),
        last=last,
        numbers=_numbers(("class", "before", "after"), attack.classes, attack.before, attack.after),
        chart=_draw_losses(attack.losses) if len(attack.losses) > 1 and not attack.misclassified else None,
        command=look_command(context, *attack.picture.words, *attack.words),
    )


def show_map(context: ViewContext, made: PictureMap) -> str:
    """The picture beside its map, and how the answer falls with what the map marks and with random regions."""
    image = made.picture.image
    return _render(
        "map.html",
        map=made,
        picture=_encode(image),
        small=max(image.shape[1:]) <= LARGEST_PNG,
        chart=_draw_deletion(made),
        command=look_command(context, *made.picture.words, *made.words),
    )


def show_factorization(factored: FactoredPicture) -> str:
    """The picture at a rank, what it costs, its spectrum, and the gauge."""
    stored, pixels = factored.numbers
    report = factored.report
    return _render(
        "factorization.html",
        factored=factored,
        report=report,
        original=report.pictures[0],
        stored=stored,
        pixels=pixels,
        small=max(report.rows, report.columns) <= LARGEST_PNG,
        spectrum=to_svg(chart_spectrum(report, WIDTH), label="Singular values, those of the rank in colour"),
        gauge=_draw_gauge(report.gauge, factored.scaled) if report.gauge else None,
        command=command("factor", *factored.words),
    )


def show_recurrence(recurrence: Recurrence) -> str:
    """The gradient over time between its bounds, and what they prove."""
    last, k = recurrence.norms[-1], len(recurrence.norms) - 1
    finding = f"Over {k} steps the gradient {'grows' if last > 1 else 'shrinks'} to {last:.2g} of its size"
    if math.isnan(last):
        finding = "The gradient is zero"
    series = {name: dict(points) for name, points in _series(recurrence).items()}
    shared = sorted(set.intersection(*map(set, series.values())))
    table = [(k, [points[k] for points in series.values()]) for k in shared[:: max(1, len(shared) // 12)]]
    return _render(
        "recurrence.html",
        finding=finding,
        matrix=recurrence.matrix,
        legend=tuple(zip(series, SERIES, strict=False)),
        chart=_draw_recurrence(recurrence, label=finding),
        rows=table,
        names=tuple(series),
        command=command("trace", *recurrence.choice.words),
    )


def show_error(text: str) -> str:
    """One line that says what was wrong."""
    return _render("error.html", text=text)


def _bars(classes: tuple[str, ...], *columns: tuple[float, ...]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """The likeliest classes, by label where there are few; each with its probability before (and after)."""
    largest = sorted(range(len(classes)), key=lambda i: max(column[i] for column in columns), reverse=True)[:SHOWN]
    order = sorted(largest) if len(classes) <= SHOWN else largest
    return tuple((classes[i], tuple(column[i] for column in columns)) for i in order)


def _numbers(titles: Sequence[str], classes: Sequence[str], *columns: Sequence[float]) -> str:
    """Every class with its probabilities, as text with tabs: what a spreadsheet takes."""
    names = (" ".join(inert(name).split()) for name in classes)
    rows = ((name, *(f"{value:.6g}" for value in values)) for name, *values in zip(names, *columns, strict=True))
    return "\n".join("\t".join(row) for row in (tuple(titles), *rows))


def _encode(image: Tensor) -> str:
    """A small picture as it is, for it is enlarged pixel by pixel; any other as WebP of the size it is shown in."""
    return png_base64(image) if max(image.shape[1:]) <= LARGEST_PNG else webp_base64(image, largest=_LARGEST)


def _draw_losses(losses: Sequence[float]) -> Markup:
    """Cross-entropy after each step of an attack; step 0 is the clean picture."""
    tips = [f"step {step}: {loss:.4g} nats" for step, loss in enumerate(losses)]
    power = math.floor(math.log10(max(losses))) if 0 < max(losses) < 0.01 else 0  # else decimals overflow their place
    unit = f"loss, 10⁻{str(-power).translate(_RAISED)} nats" if power else "loss, nats"
    series = Series("loss", range(len(losses)), [loss / 10.0**power for loss in losses], tips=tips)
    return to_svg(chart_curves([series], Axes("step", unit), WIDTH, height=190), label="Loss after each step")


def _draw_deletion(made: PictureMap) -> Markup:
    """The probability of the class explained against the share of the regions that is blurred."""
    named = {"in random order": made.random, "marked most first": made.marked}
    series = [
        Series(name, made.fractions, values, tips=[f"{name}: {percent(value)}" for value in values])
        for name, values in named.items()
    ]
    axes = Axes("share of the regions blurred, %", "probability, %", x_shares=True, y_shares=True)
    return to_svg(chart_curves(series, axes, WIDTH, height=190), label="Probability while regions are blurred")


def _draw_gauge(points: Sequence[GaugePoint], chosen: GaugePoint | None) -> Markup:
    """Sharpness along (cA, B/c), with the chosen c marked."""
    chart = chart_gauge(points, WIDTH)
    if chosen is not None:
        here: list[Row] = [{"c": chosen.scale, "y": chosen.sharpness, "tip": "the chosen c"}]
        mark = alt.Chart(source(here)).mark_point(filled=True, size=130, color=ALARM, opacity=1)
        chart = chart + mark.encode(x="c:Q", y="y:Q", description=tip())
    return to_svg(chart, label="Sharpness along the scaling c")


def _series(recurrence: Recurrence) -> dict[str, tuple[tuple[int, float], ...]]:
    """Name to (k, value): the gradient, ‖W^k‖ and its two bounds, all 1 at k = 0."""
    matrix = recurrence.matrix
    logs = {"‖W‖ᵏ": matrix.log_upper, "‖Wᵏ‖": matrix.log_power, "ρᵏ": matrix.log_lower}
    bounds = {
        name: ((0, 1.0), *((k, math.exp(min(log, 700.0))) for k, log in zip(matrix.k, values, strict=True)))
        for name, values in logs.items()
    }
    return {"the gradient": tuple(enumerate(recurrence.norms)), **bounds}


def _draw_recurrence(recurrence: Recurrence, *, label: str) -> Markup:
    """The gradient against the distance from the last step, between ρᵏ and ‖W‖ᵏ, on powers of ten."""
    series = _series(recurrence)
    rows: list[Row] = [
        {"series": name, "x": k, "y": value, "tip": f"{name}, k = {k}: {value:.3g}"}
        for name, points in series.items()
        for k, value in points
        if value > 0 and abs(math.log10(value)) <= _DECADES
    ]
    values = [float(row["y"]) for row in rows if isinstance(row["y"], float)] or [1.0]
    names = list(series)
    dashes = alt.Scale(domain=names, range=[[1, 0], [6, 3], [1, 0], [2, 3]])
    widths = alt.Scale(domain=names, range=[3, 1.6, 1.6, 1.6])
    chart = alt.Chart(source(rows)).mark_line()
    chart = chart.encode(
        x=alt.X("x:Q", title="k, steps before the last", axis=alt.Axis(grid=False, format="~r")),
        y=alt.Y("y:Q", title="size", axis=decades([*values, 1.0]), scale=alt.Scale(type="log", nice=False)),
        color=colours(names),
        strokeDash=alt.StrokeDash("series:N", legend=None, scale=dashes),
        strokeWidth=alt.StrokeWidth("series:N", legend=None, scale=widths),
    )
    if len(values) == 1:
        chart = chart.mark_point(color=SOFT)
    return to_svg(chart.properties(width=WIDTH, height=230), label=label)


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("assay.app"), autoescape=select_autoescape(("html",)), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["inert"] = lambda text: inert(str(text), keep="")
    environment.filters["picture_url"] = picture_url
    environment.filters["percent"] = percent
    return environment
