"""The charts of the views, drawn once at a width that suits a phone and a column alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
from markupsafe import Markup

from assay.report.charts import ALARM, SERIES, SOFT, Row, colours, decades, source, tip, to_svg
from assay.report.curves import Axes, Series, chart_curves
from assay.report.factor_charts import chart_gauge, chart_spectrum
from assay.views.factoring import Factored
from assay.views.recurring import Recurrence

WIDTH, HEIGHT = 400, 190
_DECADES = 12.0  # beyond this many powers of ten from 1 a curve leaves the chart


def draw_losses(losses: Sequence[float], *, finding: str) -> Markup:
    """Cross-entropy after each step of an attack; step 0 is the picture as it was."""
    tips = [f"step {step}: {loss:.4g} nats" for step, loss in enumerate(losses)]
    series = Series("loss", range(len(losses)), losses, tips=tips)
    return to_svg(chart_curves([series], Axes("step", "loss, nats"), WIDTH, height=HEIGHT), label=finding)


def draw_ranks(factored: Factored, *, finding: str) -> Markup:
    """The singular values, those kept in colour."""
    return to_svg(chart_spectrum(factored.report, WIDTH), label=finding)


def draw_scales(factored: Factored, *, finding: str) -> Markup:
    """Sharpness along (cA, B/c), and where the chosen c stands."""
    line = chart_gauge(factored.report.gauge, WIDTH)
    if factored.scaled is None:
        return to_svg(line, label=finding)
    here: list[Row] = [{"c": factored.scaled.scale, "y": factored.scaled.sharpness, "tip": "the chosen c"}]
    point = (
        alt.Chart(source(here))
        .mark_point(filled=True, size=130, color=ALARM, opacity=1)
        .encode(x="c:Q", y="y:Q", description=tip())
    )
    return to_svg(line + point, label=finding)


def series_of(recurrence: Recurrence) -> dict[str, tuple[tuple[int, float], ...]]:
    """Name to (k, value): the gradient, ‖W^k‖ and its two bounds, all 1 at k = 0."""
    matrix = recurrence.matrix
    logs = {"‖W‖ᵏ": matrix.log_upper, "‖Wᵏ‖": matrix.log_power, "ρᵏ": matrix.log_lower}
    bounds = {
        name: ((0, 1.0), *((k, math.exp(min(log, 700.0))) for k, log in zip(matrix.k, values, strict=True)))
        for name, values in logs.items()
    }
    return {"the gradient": tuple(enumerate(recurrence.norms)), **bounds}


def draw_recurrence(recurrence: Recurrence, *, finding: str) -> Markup:
    """The gradient against the distance from the last step, between ρᵏ and ‖W‖ᵏ, on powers of ten."""
    series = series_of(recurrence)
    rows: list[Row] = [
        {"series": name, "x": k, "y": value, "tip": f"{name}, k = {k}: {value:.3g}"}
        for name, points in series.items()
        for k, value in points
        if value > 0 and abs(math.log10(value)) <= _DECADES
    ]
    values = [float(row["y"]) for row in rows if isinstance(row["y"], float)] or [1.0]
    names = list(series)
    dashes = alt.StrokeDash(
        "series:N", legend=None, scale=alt.Scale(domain=names, range=[[1, 0], [6, 3], [1, 0], [2, 3]])
    )
    widths = alt.StrokeWidth("series:N", legend=None, scale=alt.Scale(domain=names, range=[3, 1.6, 1.6, 1.6]))
    chart = (
        alt.Chart(source(rows))
        .mark_line()
        .encode(
            x=alt.X("x:Q", title="k, steps before the last", axis=alt.Axis(grid=False, format="~r")),
            y=alt.Y("y:Q", title="size", axis=decades([*values, 1.0]), scale=alt.Scale(type="log", nice=False)),
            color=colours(names),
            strokeDash=dashes,
            strokeWidth=widths,
        )
    )
    if len(values) == 1:
        chart = chart.mark_point(color=SOFT)
    return to_svg(chart.properties(width=WIDTH, height=230), label=finding)


LEGEND = tuple(zip(("the gradient", "‖W‖ᵏ", "‖Wᵏ‖", "ρᵏ"), SERIES, strict=False))
