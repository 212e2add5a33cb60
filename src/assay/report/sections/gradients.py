"""Gradient norms over depth."""

from __future__ import annotations

import math

import altair as alt

from assay.records.checkup import Checkup
from assay.records.gradients import GradientFlow
from assay.report.drawing import AnyChart, Row, colours, decades, figure, shapes, source, tip
from assay.report.parts import NAME, NUMBER, Column, Figure, Part, Section, Table
from assay.report.wording import count, number, percent

_SIGNALS = (
    ("weight_gradient", "‖∂L/∂W‖₂ of the weight"),
    ("activation_gradient", "∂L/∂output, root mean square"),
    ("activation", "output, root mean square"),
)


def gradient_flow_section(checkup: Checkup) -> Section | None:
    """Weight and activation gradients of each layer, on a logarithmic axis."""
    flow = checkup.first(GradientFlow)
    if flow is None:
        return None
    parts: list[Part] = [part for part in (_over_depth(flow), _layers(flow)) if part]
    summary = f"One labelled batch of {count(flow.n)} images in evaluation mode, mean loss {number(flow.loss)} nats."
    if flow.first_non_finite is not None:
        summary += f" The first layer with numbers that are not finite is {flow.first_non_finite}."
    return Section("gradient-flow", "Gradients over depth", summary, tuple(parts), records=(flow,))


def _over_depth(flow: GradientFlow) -> Figure | None:
    rows: list[Row] = [
        {
            "depth": layer.depth, "series": title, "value": value,
            "tip": f"{layer.name} ({layer.type}), {title}: {number(value)}",
        }
        for field, title in _SIGNALS
        for layer in flow.layers
        if math.isfinite(value := getattr(layer, field)) and value > 0
    ]  # fmt: skip
    if not rows:
        return None
    titles = [title for _, title in _SIGNALS]
    values = [float(row["value"] or 0) for row in rows]

    def build(width: int) -> AnyChart:
        base = alt.Chart(source(rows)).encode(
            x=alt.X(
                "depth:Q", title="layer, from input to output", axis=alt.Axis(tickMinStep=1, grid=False, format="d")
            ),
            y=alt.Y(
                "value:Q",
                scale=alt.Scale(type="log"),
                title="norm (logarithmic)",
                axis=decades(values),
            ),
            color=colours(titles),
        )
        return alt.layer(
            base.mark_line(strokeWidth=2),
            base.mark_point(filled=True, size=50, opacity=1).encode(shape=shapes(titles), description=tip()),
        ).properties(width=width - 60, height=280)

    rate = flow.decay_per_layer
    if rate is None:
        finding = "Gradient norms from input to output"
    elif 0.95 <= rate <= 1.05:
        finding = f"Gradients reach the input: they change by ×{number(rate)} a layer"
    else:
        finding = f"Gradients {'shrink' if rate < 1 else 'grow'} by ×{number(rate)} a layer on their way to the input"
    left_out = sum(getattr(layer, field) <= 0 for field, _ in _SIGNALS for layer in flow.layers)
    note = "Flat lines are healthy; a slope vanishes or explodes."
    if left_out:
        note += f" {count(left_out)} values that are zero have no place on a logarithmic axis; see the table."
    return figure(build, finding=finding, note=note, full=True, legend=titles)


def _layers(flow: GradientFlow) -> Table:
    columns = ("‖W‖₂", "‖∂L/∂W‖₂", "relative", "output", "∂L/∂output", "dead units", "not finite")
    return Table(
        "Every layer",
        (Column("layer", NAME), Column("type"), *(Column(title, NUMBER) for title in columns)),
        tuple(
            (
                layer.name,
                layer.type,
                number(layer.weight_norm),
                number(layer.weight_gradient),
                number(layer.relative_gradient),
                number(layer.activation),
                number(layer.activation_gradient),
                "–" if layer.dead is None else percent(layer.dead),
                count(layer.non_finite),
            )
            for layer in flow.layers
        ),
        folded=True,
    )
