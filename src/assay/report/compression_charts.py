"""Charts of a compression: accuracy against rank, where the FLOPs went, and the spectra of the layers."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from assay.records.compression import CompressionPoint, LayerCompression
from assay.report.drawing import ACCENT, ALARM, SOFT, AnyChart, Row, decades, shares, source

WIDTH, HEIGHT = 420, 240
FLOOR = 1e-4  # of σ₁: smaller singular values have no place on the chart


def draw_accuracy(curve: Sequence[CompressionPoint], top: float) -> AnyChart:
    """Two methods over the share of the rank, under the accuracy of the whole network."""
    names = ["data-aware", "weight SVD"]
    rows: list[Row] = [
        {
            "x": p.share,
            "y": p.accuracy,
            "method": p.method,
            "tip": f"{p.method} at {100 * p.share:.3g} % of the rank: {100 * p.accuracy:.2f} %",
        }
        for p in curve
    ]
    x = alt.X(
        "x:Q",
        title="share of the full rank, per cent",
        axis=shares(),
        scale=alt.Scale(zero=False, nice=False, padding=12),
    )
    y = alt.Y("y:Q", title="accuracy, per cent", axis=shares(), scale=alt.Scale(domain=[0, 1]))
    colour = alt.Color("method:N", scale=alt.Scale(domain=names, range=[ACCENT, ALARM]), legend=None)
    base = alt.Chart(source(rows)).encode(x=x, y=y, color=colour, description="tip:N")
    whole: list[Row] = [{"y": top, "tip": f"the whole network: {100 * top:.2f} %"}]
    rule = alt.Chart(source(whole)).mark_rule(color=SOFT).encode(y="y:Q", description="tip:N")
    chart: AnyChart = (
        rule + base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=50, opacity=1)
    ).properties(width=WIDTH, height=HEIGHT)
    return chart


def draw_flops(layers: Sequence[LayerCompression]) -> AnyChart:
    """FLOPs of every layer: what it had, and upon it what it has."""
    rows: list[Row] = [
        {
            "layer": layer.name,
            "before": layer.flops_before / 1e6,
            "after": layer.flops_after / 1e6,
            "tip": f"{layer.name}: {layer.flops_before / 1e6:.3g} → {layer.flops_after / 1e6:.3g} million",
        }
        for layer in layers
    ]
    order = [layer.name for layer in layers]
    extent = 8 * max(len(name) for name in order)  # the page's letters are wider than those that Vega measures with
    axis = alt.Axis(ticks=False, domain=False, labelLimit=170, minExtent=min(170, extent))
    y = alt.Y("layer:N", title=None, sort=order, axis=axis)
    x_axis = alt.Axis(tickCount=5, format="~s")
    base = alt.Chart(source(rows)).encode(y=y, description="tip:N")
    title = "million FLOPs an image"
    before = base.mark_bar(color=SOFT, opacity=0.35, height=11).encode(x=alt.X("before:Q", title=title, axis=x_axis))
    after = base.mark_bar(color=ACCENT, height=11).encode(x=alt.X("after:Q", title=title, axis=x_axis))
    chart: AnyChart = (before + after).properties(width=WIDTH - 60, height=max(80, 17 * len(order)))
    return chart


def draw_spectra(layers: Sequence[LayerCompression]) -> AnyChart:
    """σ_i/σ₁ over i/n, one line a layer; those of replaced layers in colour."""
    rows: list[Row] = []
    for layer in layers:
        if not layer.spectrum or layer.spectrum[0] <= 0:
            continue
        n = len(layer.spectrum)
        state = "kept" if layer.kind == "kept" else "replaced"
        rows += [
            {
                "x": i / n,
                "y": value / layer.spectrum[0],
                "layer": layer.name,
                "state": state,
                "tip": f"{layer.name}: σ{i}/σ1 = {value / layer.spectrum[0]:.3g}",
            }
            for i, value in enumerate(layer.spectrum, 1)
            if value > FLOOR * layer.spectrum[0]
        ]
    values = [row["y"] for row in rows if isinstance(row["y"], float)]
    chart: AnyChart = (
        alt.Chart(source(rows))
        .mark_line(strokeWidth=1.6, opacity=0.75)
        .encode(
            x=alt.X(
                "x:Q", title="share of the singular values, per cent", axis=shares(), scale=alt.Scale(domain=[0, 1])
            ),
            y=alt.Y("y:Q", title="σ_i / σ₁", scale=alt.Scale(type="log"), axis=decades(values)),
            detail="layer:N",
            color=alt.Color("state:N", scale=alt.Scale(domain=["replaced", "kept"], range=[ACCENT, SOFT]), legend=None),
            description="tip:N",
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return chart
