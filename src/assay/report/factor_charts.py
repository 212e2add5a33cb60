"""Charts of a factorisation: its spectrum, its error, its gauge, and the saddle it lives on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from assay.records.factorization import FactorizationReport, GaugePoint, Landscape
from assay.report.charts import ACCENT, ALARM, SERIES, SOFT, AnyChart, Row, decades, source

WIDTH, HEIGHT = 420, 240
MOST = 400


def draw_spectrum(report: FactorizationReport) -> AnyChart:
    """σ_i against i; the ones kept in colour."""
    sigma = [value for value in report.singular_values if value > 0][:MOST]
    rows: list[Row] = [
        {"i": i, "sigma": value, "kept": "kept" if i <= report.rank else "left out", "tip": f"σ{i} = {value:.4g}"}
        for i, value in enumerate(sigma, 1)
    ]
    wide = max(sigma) / min(sigma) > 30
    colour = alt.Color("kept:N", scale=alt.Scale(domain=["kept", "left out"], range=[ACCENT, SOFT]), legend=None)
    scale, axis = (alt.Scale(type="log"), decades(sigma)) if wide else (alt.Scale(zero=True), alt.Axis(tickCount=5))
    chart: AnyChart = (
        alt.Chart(source(rows))
        .mark_point(filled=True, size=36, opacity=1)
        .encode(
            x=alt.X(
                "i:Q", title="i", axis=alt.Axis(grid=False, tickMinStep=1, format="~r"), scale=alt.Scale(nice=False)
            ),
            y=alt.Y("sigma:Q", title="singular value σ_i", scale=scale, axis=axis),
            color=colour,
            description="tip:N",
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return chart


def draw_energy(report: FactorizationReport) -> AnyChart:
    """The smallest relative error of any factorisation against its rank, and where this one stands."""
    rows: list[Row] = [
        {"rank": p.rank, "error": p.relative_error, "tip": f"rank {p.rank}: {p.relative_error:.4g}"}
        for p in report.curve
    ]
    here: list[Row] = [
        {"rank": report.rank, "error": report.relative_error, "tip": f"this one: {report.relative_error:.4g}"}
    ]
    x = alt.X(
        "rank:Q", title="rank r", axis=alt.Axis(grid=False, tickMinStep=1, format="~r"), scale=alt.Scale(nice=False)
    )
    y = alt.Y("error:Q", title="‖X − AB‖ / ‖X‖, per cent", scale=alt.Scale(domain=[0, 1]), axis=_per_cent())
    line = alt.Chart(source(rows)).mark_line(color=ACCENT, strokeWidth=2).encode(x=x, y=y)
    point = (
        alt.Chart(source(here))
        .mark_point(filled=True, size=110, color=ALARM, opacity=1)
        .encode(x=x, y=y, description="tip:N")
    )
    chart: AnyChart = (line + point).properties(width=WIDTH, height=HEIGHT)
    return chart


def draw_gauge(points: Sequence[GaugePoint]) -> AnyChart:
    """Sharpness along (cA, B/c) against the loss, which does not move."""
    rows: list[Row] = [
        {"c": p.scale, "y": p.sharpness, "tip": f"c = {p.scale:.3g}: λmax = {p.sharpness:.4g}, loss {p.loss:.6g}"}
        for p in points
    ]
    c = [p.scale for p in points]
    chart: AnyChart = (
        alt.Chart(source(rows))
        .mark_line(color=ACCENT, strokeWidth=2, point=alt.OverlayMarkDef(filled=True, size=40, color=ACCENT, opacity=1))
        .encode(
            x=alt.X("c:Q", title="c", scale=alt.Scale(type="log"), axis=decades(c)),
            y=alt.Y(
                "y:Q", title="sharpness λmax", scale=alt.Scale(type="log"), axis=decades([p.sharpness for p in points])
            ),
            description="tip:N",
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return chart


def draw_hessian(landscape: Landscape) -> AnyChart:
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
    dots = (
        alt.Chart(source(computed))
        .mark_point(filled=True, size=22, color=ACCENT, opacity=1)
        .encode(x=x, y=y, description="tip:N")
    )
    chart: AnyChart = (line + dots).properties(width=WIDTH, height=HEIGHT)
    return chart


def draw_saddle(landscape: Landscape) -> AnyChart:
    """Contours of (σ₁ − ab)² over the plane, and the ways of three methods from one start; a and b in units of √σ₁."""
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
    box = alt.Scale(domain=[-1.7, 1.7], nice=False)
    axis = alt.Axis(values=[-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    x = alt.X("x:Q", title="b / √σ₁", scale=box, axis=axis)
    y = alt.Y("y:Q", title="a / √σ₁", scale=box, axis=axis)
    colour = alt.Color(
        "series:N", sort=None, scale=alt.Scale(domain=names, range=[*SERIES[:2], SERIES[3]]), legend=None
    )
    ground = alt.Chart(source(contours)).mark_line(strokeWidth=1.2, clip=True).encode(
        x=x, y=y, color=alt.value(SOFT), strokeOpacity=alt.Opacity("weight:Q", scale=None, legend=None),
        detail="curve:N", order="order:Q",
    )  # fmt: skip
    base = alt.Chart(source(steps))
    paths = base.mark_line(strokeWidth=2, clip=True).encode(x=x, y=y, color=colour, order="order:Q")
    dots = base.mark_point(filled=True, size=26, opacity=1, clip=True).encode(
        x=x, y=y, color=colour, description="tip:N"
    )
    origin: list[Row] = [{"x": 0.0, "y": 0.0, "tip": "the saddle: a = b = 0"}]
    cross = alt.Chart(source(origin)).mark_point(shape="cross", size=110, filled=True, color="var(--ink)", opacity=1)
    saddle = cross.encode(x=x, y=y, description="tip:N")
    chart: AnyChart = (ground + paths + dots + saddle).properties(width=WIDTH, height=WIDTH * 0.8)
    return chart


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


def _per_cent() -> alt.Axis:
    return alt.Axis(labelExpr="format(datum.value * 100, '~f')", tickCount=5)
