"""The page of ``assay compress``: one offline file drawn from a :class:`CompressionReport`."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from assay.records.compression import CompressionPoint, CompressionReport, LayerCompression
from assay.report.charts import ACCENT, ALARM, SOFT, AnyChart, Row, decades, shares, source
from assay.report.leaflet import Drawn, Grid, Part, drawn, render_leaflet
from assay.report.lowrank_wording import compression_headline, find_wins
from assay.wording import points

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


def render_compression_page(report: CompressionReport) -> str:
    """The whole page as text; every name is escaped, nothing is fetched."""
    before, after = report.before, report.after
    change = points(after.clean.accuracy - before.clean.accuracy)
    return render_leaflet(
        title=f"{report.model}, compressed",
        headline=compression_headline(report),
        subject=f"{report.model} on {report.data}, asked for {report.target}",
        good=report.latency_ratio < 1,
        stamp=f"{1 / report.latency_ratio:.2f} times as fast" if report.latency_ratio < 1 else "Not faster",
        text=(
            f"One batch of {before.batch} images took {1e3 * before.latency:.2f} ms before and "
            f"{1e3 * after.latency:.2f} ms after, as the fastest of interleaved runs. "
            f"On {after.clean.n:,} test images the accuracy changes by {change} points."
        ),
        tiles=(
            ("FLOPs", f"{after.flops / before.flops:.2f}×"),
            ("parameters", f"{after.parameters / before.parameters:.2f}×"),
            ("latency", f"{report.latency_ratio:.2f}×"),
            ("accuracy", f"{100 * after.clean.accuracy:.2f} %"),
            ("fine-tuning", f"{report.fine_tuning_seconds:.0f} s" if report.fine_tuning_epochs else "none"),
        ),
        sections=tuple(part for part in (_standing(report), _curve(report), _layers(report)) if part is not None),
    )


def _standing(report: CompressionReport) -> Part:
    before, after = report.before, report.after
    rows = [
        ("parameters", f"{before.parameters:,}", f"{after.parameters:,}"),
        ("FLOPs an image", f"{before.flops:,}", f"{after.flops:,}"),
        (f"ms for {before.batch} images, fastest", f"{1e3 * before.latency:.2f}", f"{1e3 * after.latency:.2f}"),
        (
            "and its quartiles",
            f"{1e3 * before.latency_low:.2f}–{1e3 * before.latency_high:.2f}",
            f"{1e3 * after.latency_low:.2f}–{1e3 * after.latency_high:.2f}",
        ),
        (
            f"accuracy, n = {before.clean.n:,}",
            f"{100 * before.clean.accuracy:.2f} %",
            f"{100 * after.clean.accuracy:.2f} %",
        ),
    ]
    if before.robust is not None and after.robust is not None:
        rows.append(
            (
                f"under {before.robust.attack}, n = {before.robust.n:,}",
                f"{100 * before.robust.accuracy:.1f} %",
                f"{100 * after.robust.accuracy:.1f} %",
            )
        )
    text = f"Before fine-tuning the compressed network has {100 * report.compressed.accuracy:.2f} % on the test images."
    return Part("Before and after", text, table=Grid(("", "before", "after"), tuple(rows)))


def _curve(report: CompressionReport) -> Part | None:
    if not report.curve:
        return None
    won, of = find_wins(report.curve)
    n = report.curve[0].n
    figure = drawn(
        draw_accuracy(report.curve, report.curve_top),
        f"Fitted to data, the factors are better at {won} of {of} ranks",
        note="Every layer at the same share of its full rank, without fine-tuning; the line is the whole network.",
        legend=(("fitted to data", ACCENT), ("weight SVD", ALARM)),
    )
    rows = tuple(
        (p.method, f"{100 * p.share:.3g} %", f"{p.flops / report.before.flops:.2f}×", f"{100 * p.accuracy:.2f} %")
        for p in report.curve
    )
    text = f"On {n:,} images held out of the training set."
    return Part("Accuracy against rank", text, (figure,), Grid(("method", "rank", "FLOPs", "accuracy"), rows))


def _layers(report: CompressionReport) -> Part:
    changed = [layer for layer in report.layers if layer.kind != "kept"]
    figures: list[Drawn] = []
    if changed:
        saved = sum(layer.flops_before - layer.flops_after for layer in changed)
        most = max(changed, key=lambda layer: layer.flops_before - layer.flops_after)
        share = 100 * (most.flops_before - most.flops_after) / saved if saved else 0.0
        finding = (
            f"{len(changed)} of {len(report.layers)} layers are replaced; {most.name} saves the most, {share:.0f} %"
        )
        figures.append(drawn(draw_flops(report.layers), finding, legend=(("before", SOFT), ("after", ACCENT))))
    if any(layer.spectrum for layer in report.layers):
        worst = max(report.layers, key=lambda layer: layer.condition_before)
        figures.append(
            drawn(
                draw_spectra(report.layers),
                f"Singular values of every layer; the widest spread is {worst.condition_before:.3g}, of {worst.name}",
                legend=(("replaced", ACCENT), ("kept", SOFT)),
            )
        )
    rows = tuple(_row(layer) for layer in report.layers)
    columns = ("layer", "form", "rank", "FLOPs", "latency", "κ before", "κ after", "error")
    text = (
        "A form is a candidate only where it is measured to be faster than the layer. The error is the share of the "
        "output's variance that is missed, each direction counted by how much it moves the answer."
    )
    return Part("Layer by layer", text, tuple(figures), Grid(columns, rows))


def _row(layer: LayerCompression) -> tuple[str, ...]:
    if layer.kind == "kept":
        return (layer.name, layer.reason or "kept", "", "", "", f"{layer.condition_before:.3g}", "", "")
    rank = f"{layer.rank}" if layer.inner is None else f"{layer.inner}, {layer.rank}"
    return (
        layer.name,
        layer.kind,
        f"{rank} of {layer.full_rank}",
        f"{layer.flops_after / layer.flops_before:.2f}×",
        f"{layer.latency_after / layer.latency_before:.2f}×",
        f"{layer.condition_before:.3g}",
        f"{layer.condition_after:.3g}",
        f"{100 * layer.relative_error:.2g} %",
    )
