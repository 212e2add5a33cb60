"""Charts of a factorisation: its spectrum, its error, its gauge, and the saddle of its loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from assay.records.factorization import FactorizationReport, GaugePoint, Landscape
from assay.report.charts import ACCENT, ALARM, INK, SOFT, AnyChart, Row, colours, figure, source, tip
from assay.report.curves import Axes, Series, chart_curves, draw_curves
from assay.report.parts import Figure, Table

MOST = 400
_KEPT = (1, 6)  # colours of what is kept and what is left out
_METHODS = (1, 2, 4)


def chart_spectrum(report: FactorizationReport, width: int, *, height: int = 240) -> AnyChart:
    """σ_i against i; the values that are kept in colour."""
    sigma = [value for value in report.singular_values if value > 0][:MOST]
    series = [
        Series(name, [i for i, _ in part], [value for _, value in part], tips=[f"σ{i} = {v:.4g}" for i, v in part])
        for name, kept in (("kept", True), ("left out", False))
        if (part := [(i, value) for i, value in enumerate(sigma, 1) if (i <= report.rank) == kept])
    ]
    axes = Axes("i", "singular value σ_i", y_log=max(sigma) / min(sigma) > 30)
    places = _KEPT if len(series) == 2 or report.rank >= 1 else ()
    return chart_curves(series, axes, width, height=height, lines=False, places=places[: len(series)])


def draw_spectrum(report: FactorizationReport) -> Figure:
    """The singular values, those that are kept in colour."""
    return figure(
        lambda width: chart_spectrum(report, width - 60),
        finding=f"The first {min(report.rank, len(report.singular_values))} singular values are kept",
        legend=("kept", "left out"),
        places=_KEPT,
    )


def draw_error(report: FactorizationReport) -> Figure | None:
    """The least relative error of any factorisation against its rank, and that of this one."""
    curve = [(point.rank, point.relative_error) for point in report.curve]
    series = [
        Series(
            "the optimum",
            [rank for rank, _ in curve],
            [error for _, error in curve],
            tips=[f"rank {rank}: {error:.4g}" for rank, error in curve],
        ),
        Series(
            "this factorisation",
            [report.rank],
            [report.relative_error],
            tips=[f"this one, rank {report.rank}: {report.relative_error:.4g}"],
        ),
    ]
    return draw_curves(
        series,
        Axes("rank r", "relative error ‖X − AB‖ / ‖X‖ (%)", y_shares=True),
        finding=f"The best of rank {report.rank} misses {100 * report.relative_error:.3g} %",
        note="The line is the optimum for every rank (Eckart and Young 1936); nothing lies below it.",
    )


def chart_gauge(points: Sequence[GaugePoint], width: int, *, height: int = 240) -> AnyChart:
    """Sharpness along (cA, B/c); the loss does not move."""
    tips = [f"c = {p.scale:.3g}: λmax = {p.sharpness:.4g}, loss {p.loss:.6g}" for p in points]
    series = Series("sharpness", [p.scale for p in points], [p.sharpness for p in points], tips=tips)
    return chart_curves([series], Axes("c", "sharpness λmax", x_log=True, y_log=True), width, height=height)


def draw_gauge(points: Sequence[GaugePoint], *, table: Table) -> Figure:
    """Sharpness along (cA, B/c), with the numbers beside it."""
    flat = min(points, key=lambda point: point.sharpness)
    finding = f"Sharpness is lowest, {flat.sharpness:.4g}, at c = {flat.scale:.3g}"
    return figure(lambda width: chart_gauge(points, width - 60, height=200), finding=finding, table=table, full=True)


def draw_hessian(landscape: Landscape) -> Figure:
    """Predicted eigenvalues as a line, computed ones as dots upon it."""
    step = max(1, len(landscape.predicted) // MOST)
    predicted: list[Row] = [{"i": i, "value": v} for i, v in enumerate(landscape.predicted, 1)]
    computed: list[Row] = [
        {"i": i, "value": v, "tip": f"λ{i} = {v:.4g}, predicted {landscape.predicted[i - 1]:.4g}"}
        for i, v in enumerate(landscape.computed, 1)
        if i % step == 0
    ]
    x = alt.X("i:Q", title="i", axis=alt.Axis(grid=False, format="~r"), scale=alt.Scale(nice=False))
    y = alt.Y("value:Q", title="eigenvalue λ_i of the Hessian", axis=alt.Axis(tickCount=5))
    line = alt.Chart(source(predicted)).mark_line(color=ALARM, strokeWidth=2, interpolate="step-after").encode(x=x, y=y)
    dots = alt.Chart(source(computed)).mark_point(filled=True, size=22, color=ACCENT, opacity=1)
    chart = line + dots.encode(x=x, y=y, description=tip())
    return figure(
        lambda width: chart.properties(width=width - 60, height=240),
        finding=f"The Hessian has the predicted spectrum, to {landscape.largest_difference:.0e}",
        legend=("computed", "predicted"),
    )


def draw_saddle(landscape: Landscape) -> Figure:
    """Contours of (σ₁ − ab)² over the plane, and the paths of three methods from one start; a and b over √σ₁."""
    root = math.sqrt(landscape.leading)
    levels = (0.0, 0.05, 0.25, 0.6, 1.0, 1.5, 2.2)
    contours: list[Row] = []
    for number, level in enumerate(levels):
        for target in {1 - math.sqrt(level), 1 + math.sqrt(level)}:
            contours += _hyperbola(target, f"{number}/{target:.3f}", level)
    steps: list[Row] = [
        {
            "x": b / root,
            "y": a / root,
            "series": path.method,
            "order": i,
            "tip": f"{path.method}, step {i}: loss {loss:.4g}",
        }
        for path in landscape.paths
        for i, (a, b, loss) in enumerate(zip(path.a, path.b, path.loss, strict=True))
    ]
    names = [path.method for path in landscape.paths]
    bounds = alt.Scale(domain=[-1.7, 1.7], nice=False)
    axis = alt.Axis(values=[-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    x = alt.X("x:Q", title="b / √σ₁", scale=bounds, axis=axis)
    y = alt.Y("y:Q", title="a / √σ₁", scale=bounds, axis=axis)
    colour = colours(names, _METHODS)
    ground = alt.Chart(source(contours)).mark_line(strokeWidth=1.2, clip=True).encode(
        x=x, y=y, color=alt.value(SOFT), strokeOpacity=alt.Opacity("weight:Q", scale=None, legend=None),
        detail="curve:N", order="order:Q",
    )  # fmt: skip
    base = alt.Chart(source(steps))
    paths = base.mark_line(strokeWidth=2, clip=True).encode(x=x, y=y, color=colour, order="order:Q")
    dots = base.mark_point(filled=True, size=26, opacity=1, clip=True).encode(x=x, y=y, color=colour, description=tip())
    origin: list[Row] = [{"x": 0.0, "y": 0.0, "tip": "the saddle: a = b = 0"}]
    cross = alt.Chart(source(origin)).mark_point(shape="cross", size=110, filled=True, color=INK, opacity=1)
    saddle = cross.encode(x=x, y=y, description=tip())
    return figure(
        lambda width: (ground + paths + dots + saddle).properties(width=width - 60, height=(width - 60) * 0.8),
        finding="Three methods from one start to a minimum",
        note="Contours of the loss over A = a·u₁, B = b·v₁ᵀ; the cross is the saddle point at the origin.",
        legend=names,
        places=_METHODS[: len(names)],
    )


def _hyperbola(target: float, name: str, level: float) -> list[Row]:
    """Points of ab = target (both branches; the axes for 0) in the window, strong where the loss is low."""
    weight = 0.9 - 0.3 * level
    rows: list[Row] = []
    for branch in (1, -1):
        if abs(target) < 1e-9:
            ends = [(-1.7, 0.0), (1.7, 0.0)] if branch == 1 else [(0.0, -1.7), (0.0, 1.7)]
        else:
            low = abs(target) / 1.7
            xs = [low * (1.7 / low) ** (k / 40) for k in range(41)] if low < 1.7 else []
            ends = [(branch * x, target / (branch * x)) for x in xs]
        rows += [
            {"x": x, "y": y, "curve": f"{name}/{branch}", "order": i, "weight": weight} for i, (x, y) in enumerate(ends)
        ]
    return rows
