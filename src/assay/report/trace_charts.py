"""Traces as pictures of their own: SVG or PNG files for a paper, a slide or an issue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from assay.records.gradients import DepthTrace, InputGradients
from assay.records.recurrence import RemedyComparison, TimeTrace
from assay.report.charts import GRID, SERIES, SOFT, AnyChart, source
from assay.wording import picture_url

WIDTH, HEIGHT = 720, 380
DASHES = [[1, 0], [8, 3], [3, 3], [10, 3, 2, 3], [2, 5], [6, 6]]
_WITHOUT_A_NUMBER = {"zero": GRID, "not finite": "#000000"}
_FLOOR = -45.0  # powers of ten; below lies underflow


def gradients_over_time(traces: Sequence[TimeTrace], *, bounds: bool = True) -> AnyChart:
    """log₁₀ of each model's gradient norm against the distance from the last step; plain recurrences with bounds.

    The bounds are those of the linear recurrence, started at the model's own norm at the last step: the gradient of a
    tanh network may lie below ρ^k, because its slopes are below 1, and never above ‖W‖^k.
    """
    rows: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    names = [trace.label for trace in traces]
    for trace in traces:
        norms = trace.state(trace.head).norms[::-1]
        start = next((norm for norm in norms if norm > 0 and math.isfinite(norm)), 1.0)
        rows += [{"d": d, "y": _log10(norm), "series": trace.label} for d, norm in enumerate(norms) if _shown(norm)]
        plain = [m for m in trace.matrices if not m.gate]
        if bounds and len(plain) == 1:
            for bound, logs in (("ρᵏ", plain[0].log_lower), ("‖W‖ᵏ", plain[0].log_upper)):
                for k, log in zip(plain[0].k, logs, strict=True):
                    if k < len(norms) and math.isfinite(log):
                        y = max(_FLOOR, _log10(start) + log / math.log(10))
                        limits.append({"d": k, "y": y, "series": trace.label, "bound": bound})
    low = min((row["y"] for row in rows), default=-1.0)
    high = max((row["y"] for row in rows), default=1.0)
    scale = alt.Scale(domain=[low - 0.5, high + 1.0], nice=False)
    legend = alt.Legend(symbolSize=900, symbolStrokeWidth=2.2, symbolOpacity=1)
    colour = alt.Color("series:N", sort=None, scale=alt.Scale(domain=names, range=list(SERIES)), legend=legend)
    dash = alt.StrokeDash("series:N", sort=None, scale=alt.Scale(domain=names, range=DASHES), legend=legend)
    height = alt.Y("y:Q", title="gradient norm, power of ten", scale=scale)
    base = alt.Chart(source(rows)).mark_line(strokeWidth=2.2, clip=True)
    x = alt.X("d:Q", title="steps before the last, T − t")
    layers = [base.encode(x=x, y=height, color=colour, strokeDash=dash)]
    if limits:
        band = alt.Chart(source(limits)).mark_line(strokeWidth=1, opacity=0.55, clip=True)
        layers.append(band.encode(x="d:Q", y=height, color=colour, detail="bound:N"))
    trained = f", after {traces[0].trained} steps of training" if traces and traces[0].trained else ""
    subtitle = [f"{traces[0].task}, {traces[0].length} steps{trained}" if traces and traces[0].task else ""]
    if limits:
        subtitle.append("thin lines: the linear bounds, powers of the spectral radius (below) and of the norm (above)")
    title = alt.TitleParams("How far back the gradient reaches", subtitle=subtitle)
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title)


def layers_by_steps(trace: DepthTrace) -> AnyChart:
    """The gradient norm of every layer at every sampled step, as a heat map; black: not finite, grey: exactly zero."""
    rows: list[dict[str, Any]] = [
        {"layer": layer.name, "step": str(step), "y": _log10(value) if _shown(value) else 0.0, "kind": _kind(value)}
        for layer in trace.layers
        for step, value in zip(trace.steps, layer.gradient, strict=True)
    ]
    order = [layer.name for layer in trace.layers]
    steps = alt.Axis(labelOverlap=True, labelAngle=0)
    x = alt.X("step:O", sort=[str(step) for step in trace.steps], title="training step", axis=steps)
    y = alt.Y("layer:N", sort=order, title=None, axis=alt.Axis(labelLimit=240))
    kinds = {str(row["kind"]) for row in rows}
    base = alt.Chart(source(rows)).encode(x=x, y=y)
    colour = alt.Color("y:Q", title="power of ten", scale=alt.Scale(scheme="viridis"))
    layers = [base.transform_filter("datum.kind === 'finite'").mark_rect().encode(color=colour)]
    layers += [
        base.transform_filter(f"datum.kind === '{kind}'").mark_rect(color=fill)
        for kind, fill in _WITHOUT_A_NUMBER.items()
        if kind in kinds
    ]
    names = {"zero": "grey: no gradient reaches it", "not finite": "black: not finite"}
    subtitle = "; ".join(text for kind, text in names.items() if kind in kinds)
    title = alt.TitleParams("Gradient of each layer's output over training", subtitle=subtitle)
    return alt.layer(*layers).properties(width=WIDTH, height=max(120, 14 * len(order)), title=title)


def _kind(value: float) -> str:
    return "finite" if _shown(value) else "zero" if value == 0 else "not finite"


def forget_time_constants(traces: Sequence[TimeTrace]) -> AnyChart:
    """Every unit's −1/ln f̄, sorted, on a logarithmic axis: how long each keeps what it holds."""
    rows: list[dict[str, Any]] = [
        {"series": f"{trace.label} {constants.name}", "share": (i + 0.5) / len(constants.steps), "tau": max(tau, 1e-2)}
        for trace in traces
        for constants in trace.time_constants
        for i, tau in enumerate(constants.steps)
        if math.isfinite(tau)
    ]
    names = list(dict.fromkeys(str(row["series"]) for row in rows))
    length = max((trace.length for trace in traces), default=1)
    taus = [length, *(max(tau, 1e-2) for trace in traces for one in trace.time_constants for tau in one.steps)]
    taus = [tau for tau in taus if math.isfinite(tau)]
    scale = alt.Scale(type="log", domain=[0.8 * min(taus), 1.25 * max(taus)], nice=False)
    x = alt.X("tau:Q", scale=scale, title="time constant of a unit, steps")
    curves = alt.Chart(source(rows)).mark_line(interpolate="step", strokeWidth=2.2)
    end = alt.Chart(source([{"tau": length}])).mark_rule(strokeDash=[4, 4], color=SOFT)
    y = alt.Y("share:Q", title="share of units at or below", axis=alt.Axis(format="%"))
    colour = alt.Color("series:N", sort=None, scale=alt.Scale(domain=names, range=list(SERIES)))
    chart = alt.layer(curves.encode(x=x, y=y, color=colour), end.encode(x=x))
    title = alt.TitleParams("How long the gates hold", subtitle=f"dashed: the {length} steps of the sequence")
    return chart.properties(width=WIDTH, height=HEIGHT, title=title)


def remedies_side_by_side(comparison: RemedyComparison) -> AnyChart:
    """The gradient curve after training with each remedy, one panel a problem; the grey line is without any."""
    rows: list[dict[str, Any]] = [
        {"problem": run.problem, "series": run.remedy, "d": d, "y": _log10(norm)}
        for run in comparison.runs
        for d, norm in enumerate(run.norms_after[::-1])
        if _shown(norm)
    ]
    panels = []
    for problem in ("vanishing", "exploding"):
        own = [row for row in rows if row["problem"] == problem]
        names = list(dict.fromkeys(str(row["series"]) for row in own))
        palette = [SOFT, *(SERIES[i % 5] for i in range(len(names)))]
        dashes = [[1, 0], *(DASHES[(i // 5) % len(DASHES)] for i in range(len(names)))]
        tones, strokes = (alt.Scale(domain=names, range=each[: len(names)]) for each in (palette, dashes))
        lines = alt.Chart(source(own)).mark_line(strokeWidth=2).encode(
            x=alt.X("d:Q", title="steps before the last, T − t"),
            y=alt.Y("y:Q", title="gradient norm after training, power of ten"),
            color=alt.Color("series:N", sort=None, scale=tones),
            strokeDash=alt.StrokeDash("series:N", sort=None, scale=strokes),
        )  # fmt: skip
        panels.append(lines.properties(width=WIDTH, height=260, title=f"A recurrence that starts {problem}"))
    both: alt.VConcatChart = alt.vconcat(*panels).resolve_scale(color="independent", strokeDash="independent")
    return both


def input_gradient_maps(gradients: InputGradients) -> AnyChart:
    """Each shown image above its map |∂L/∂x|, correct predictions first."""
    rows: list[dict[str, Any]] = []
    for i, sample in enumerate(gradients.samples):
        truth = "" if sample.correct else f"is {sample.label}"
        label = f"{sample.prediction}\n{100 * sample.confidence:.0f} %\n{truth}"
        for kind, encoded in (("image", sample.image), ("gradient", sample.gradient_map)):
            rows.append({"i": i, "kind": kind, "url": picture_url(encoded), "label": label, "right": sample.correct})
    size, n = 72, max(1, len(gradients.samples))
    base = alt.Chart(source(rows))
    x = alt.X("i:O", axis=None)
    pictures = base.mark_image(width=size - 4, height=size - 4).encode(
        x=x, y=alt.Y("kind:N", sort=["image", "gradient"], title=None), url="url:N"
    )
    words = base.transform_filter("datum.kind === 'image'").mark_text(
        align="center", baseline="bottom", dy=-68, fontSize=10, lineBreak="\n"
    )
    colours = alt.condition("datum.right", alt.value("var(--pass)"), alt.value("var(--error)"))
    labels = words.encode(x=x, y=alt.Y("kind:N", sort=["image", "gradient"]), text="label:N", color=colours)
    title = alt.TitleParams("Saliency maps |∂ℓ/∂x|", subtitle="green: correct; red: misclassified", offset=14)
    return alt.layer(pictures, labels).properties(width=size * n, height=2 * size, title=title)


def _shown(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def _log10(value: float) -> float:
    return max(_FLOOR, math.log10(value))
