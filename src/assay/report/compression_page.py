"""The page of ``assay compress``, drawn from a :class:`CompressionReport` alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import altair as alt

from assay.records.compression import CompressionPoint, CompressionReport, LayerCompression
from assay.report.charts import ACCENT, SOFT, AnyChart, Row, figure, side, source, tip
from assay.report.curves import Axes, Series, draw_curves
from assay.report.lowrank_wording import compression_badge, compression_headline, find_wins, replaced_layers
from assay.report.page import Page, render
from assay.report.parts import Figure, KeyFigure, Section, Table, build_section, table, tabulate
from assay.wording import count, percent, plural, points

FLOOR = 1e-4  # of σ₁: smaller singular values have no place on the chart
_BEFORE, _AFTER = 6, 1  # colours


def render_compression_page(report: CompressionReport) -> str:
    """The whole page as text; every name is escaped, nothing is fetched."""
    changed = bool(replaced_layers(report))
    sections = (_before_and_after(report), _curve(report), _layers(report))
    return render(
        Page(
            title=f"{report.model}, compressed",
            subject=f"{report.model} on {report.data}, asked for {report.target}",
            headline=compression_headline(report),
            badge=compression_badge(report),
            text=_text(report) if changed else _reasons(report),
            key_figures=_key_figures(report) if changed else (),
            sections=tuple(section for section in sections if section is not None),
            footer="Made by assay compress.",
        )
    )


def _text(report: CompressionReport) -> str:
    before, after = report.before, report.after
    change = points(after.clean.accuracy - before.clean.accuracy)
    return (
        f"One batch of {plural(before.batch, 'image')} took {1e3 * before.latency:.2f} ms before and "
        f"{1e3 * after.latency:.2f} ms after, as the fastest of interleaved runs. "
        f"On {plural(after.clean.n, 'test image')} the accuracy changes by {change} points."
    )


def _reasons(report: CompressionReport) -> str:
    """Why no layer was replaced, the commonest reason first."""
    reasons = Counter(layer.reason for layer in report.layers).most_common(2)
    sentence = "; ".join(f"{reason} ({plural(n, 'layer')})" for reason, n in reasons if reason)
    return f"{sentence[:1].upper()}{sentence[1:]}. The network is the one that was given." if sentence else ""


def _key_figures(report: CompressionReport) -> tuple[KeyFigure, ...]:
    before, after = report.before, report.after
    tuned = f"{report.fine_tuning_seconds:.0f} s of fine-tuning" if report.fine_tuning_epochs else "not fine-tuned"
    return (
        KeyFigure("latency", f"{report.latency_ratio:.2f}×", "of one batch", "before-and-after"),
        KeyFigure("clean accuracy", percent(after.clean.accuracy, digits=2), tuned, "before-and-after"),
        KeyFigure("FLOPs", f"{after.flops / before.flops:.2f}×", "of one image", "before-and-after"),
        KeyFigure("parameters", f"{after.parameters / before.parameters:.2f}×", "", "before-and-after"),
    )


def _before_and_after(report: CompressionReport) -> Section:
    before, after = report.before, report.after
    rows = [
        ("parameters", count(before.parameters), count(after.parameters)),
        ("FLOPs an image", count(before.flops), count(after.flops)),
        (f"ms for {plural(before.batch, 'image')}, fastest", *(f"{1e3 * one.latency:.2f}" for one in (before, after))),
        ("its quartiles", *(f"{1e3 * one.latency_low:.2f}–{1e3 * one.latency_high:.2f}" for one in (before, after))),
        (
            f"clean accuracy, n = {before.clean.n:,}",
            *(percent(one.clean.accuracy, digits=2) for one in (before, after)),
        ),
    ]
    if before.robust is not None and after.robust is not None:
        name = f"robust accuracy under {before.robust.attack}, n = {count(before.robust.n)}"
        rows.append((name, percent(before.robust.accuracy), percent(after.robust.accuracy)))
    accuracy = percent(report.compressed.accuracy, digits=2)
    notes = "".join(f" {note[0].upper()}{note[1:]}." for note in report.notes)
    summary = f"Before fine-tuning the compressed network has {accuracy} on the test images.{notes}"
    if not replaced_layers(report):
        summary = f"Both are the network that was given, measured twice.{notes}"
    numbers = table("Size, speed and accuracy", ("", ">before", ">after"), rows)
    return Section("before-and-after", "Before and after", summary, (numbers,))


def _curve(report: CompressionReport) -> Section | None:
    if not report.curve:
        return None
    wins, ranks = find_wins(report.curve)
    numbers = tabulate(
        "Every rank",
        report.curve,
        {
            "method": lambda p: p.method,
            ">rank": lambda p: f"{100 * p.share:.3g} %",
            ">FLOPs": lambda p: f"{p.flops / report.before.flops:.2f}×",
            ">accuracy": lambda p: percent(p.accuracy, digits=2),
        },
    )
    drawing = draw_curves(
        [_series(report.curve, method, name) for method, name in _METHODS],
        Axes("share of the full rank (%)", "accuracy (%)", x_shares=True, y_shares=True),
        finding=f"Fitted to data, the factors are better at {wins} of {plural(ranks, 'rank')}",
        note="Every layer at the same share of its full rank, without fine-tuning. Dashed: the whole network.",
        table=numbers,
        full=True,
        levels=[(report.curve_top, f"the whole network: {percent(report.curve_top, digits=2)}")],
    )
    summary = f"On {count(report.curve[0].n)} images held out of the training set."
    return build_section("curve", "Accuracy against rank", summary, drawing)


_METHODS = (("data-aware", "fitted to data"), ("weight SVD", "weight SVD"))


def _series(curve: Sequence[CompressionPoint], method: str, name: str) -> Series:
    own = [point for point in curve if point.method == method]
    tips = [f"{name} at {100 * p.share:.3g} % of the rank: {percent(p.accuracy, digits=2)}" for p in own]
    return Series(name, [point.share for point in own], [point.accuracy for point in own], tips=tips)


def _layers(report: CompressionReport) -> Section:
    left_out = table("Layers left out", ("`layer", "reason"), report.left_out) if report.left_out else None
    parts = (_flops(report.layers), _spectra(report.layers), _table(report.layers), left_out)
    summary = (
        "A form is a candidate only where it is measured to be faster than the layer. The error is the share of the "
        "output's variance that is missed, each direction weighted by its effect on the logits."
    )
    return build_section("layers", "Layer by layer", summary, *parts)


def _flops(layers: Sequence[LayerCompression]) -> Figure | None:
    """FLOPs of every layer: what it had, and upon it what it has."""
    changed = [layer for layer in layers if layer.kind != "kept"]
    if not changed:
        return None
    rows: list[Row] = [
        {"layer": layer.name, "before": before, "after": after,
         "tip": f"{layer.name}: {before:.3g} → {after:.3g} million"}
        for layer in layers
        for before, after in [(layer.flops_before / 1e6, layer.flops_after / 1e6)]
    ]  # fmt: skip
    names = [layer.name for layer in layers]

    def build(width: int) -> AnyChart:
        room = side(names, width)
        axis = alt.Axis(ticks=False, domain=False, labelLimit=room)
        base = alt.Chart(source(rows)).encode(y=alt.Y("layer:N", title=None, sort=names, axis=axis), description=tip())
        x = alt.X("before:Q", title="million FLOPs an image", axis=alt.Axis(tickCount=5, format="~s"))
        return alt.layer(
            base.mark_bar(color=SOFT, opacity=0.35, height=11).encode(x=x),
            base.mark_bar(color=ACCENT, height=11).encode(x="after:Q"),
        ).properties(width=width - room - 20, height=max(80, 17 * len(names)))

    saved = sum(layer.flops_before - layer.flops_after for layer in changed)
    most = max(changed, key=lambda layer: layer.flops_before - layer.flops_after)
    share = 100 * (most.flops_before - most.flops_after) / saved if saved else 0.0
    finding = f"{len(changed)} of {len(layers)} layers are replaced; {most.name} saves the most, {share:.0f} %"
    return figure(build, finding=finding, legend=("before", "after"), places=(_BEFORE, _AFTER))


def _spectra(layers: Sequence[LayerCompression]) -> Figure | None:
    """σ_i/σ₁ over i/n, one line a layer; those of replaced layers in colour."""
    rows: list[Row] = [
        {
            "series": layer.name,
            "x": i / len(layer.spectrum),
            "y": value / layer.spectrum[0],
            "state": "kept" if layer.kind == "kept" else "replaced",
            "tip": f"{layer.name}: σ{i}/σ1 = {value / layer.spectrum[0]:.3g}",
        }
        for layer in layers
        if layer.spectrum and layer.spectrum[0] > 0
        for i, value in enumerate(layer.spectrum, 1)
        if value > FLOOR * layer.spectrum[0]
    ]
    if not rows:
        return None

    def build(width: int) -> AnyChart:
        axes = Axes("share of the singular values (%)", "σ_i / σ₁", x_shares=True, y_log=True)
        x, y = axes.encode(rows, width)
        scale = alt.Scale(domain=["replaced", "kept"], range=[ACCENT, SOFT])
        colour = alt.Color("state:N", scale=scale, legend=None)
        chart: alt.Chart = alt.Chart(source(rows)).mark_line(strokeWidth=1.6, opacity=0.75)
        chart = chart.encode(x=x, y=y, detail="series:N", color=colour, description=tip())
        return chart.properties(width=width - 60, height=240)

    worst = max(layers, key=lambda layer: layer.condition_before)
    finding = f"Singular values of every layer; the widest spread is {worst.condition_before:.3g}, of {worst.name}"
    if all(layer.kind == "kept" for layer in layers):
        return figure(build, finding=finding, full=True)
    return figure(build, finding=finding, legend=("replaced", "kept"), places=(_AFTER, _BEFORE))


def _table(layers: Sequence[LayerCompression]) -> Table:
    titles = ("`layer", "form", "rank", ">FLOPs", ">latency", ">κ before", ">κ after", ">error")
    return table("Every layer", titles, map(_row, layers))


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
