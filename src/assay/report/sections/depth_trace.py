"""Gradients over depth while training."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.checkup import Checkup
from assay.records.depth_trace import DepthTrace, LayerTrace
from assay.report.curves import Axes, Series, draw_fan
from assay.report.parts import NAME, NUMBER, Column, Figure, Part, Section, Table
from assay.report.wording import count, distinct, number, percent

_FIELDS = (
    ("gradient", "‖∂L/∂output‖₂", "Gradients of the outputs"),
    ("weight_gradient", "‖∂L/∂θ‖₂", "Gradients of the parameters"),
    ("update", "‖Δθ‖₂ / ‖θ‖₂", "Relative updates"),
    ("activation", "root mean square", "Outputs"),
)


def depth_trace_section(checkup: Checkup) -> Section | None:
    """Every layer's gradients, updates and outputs over the sampled steps."""
    traces = list(checkup.each(DepthTrace))
    if not traces:
        return None
    parts: list[Part] = []
    for trace in traces:
        parts += [*_figures(trace), _layers(trace)]
    summary = " ".join(_sentence(trace) for trace in traces)
    return Section("depth-trace", "Gradients while training", summary, tuple(parts), records=tuple(traces))


def _sentence(trace: DepthTrace) -> str:
    broken = f" {trace.first_non_finite} was the first to turn non-finite." if trace.first_non_finite else ""
    cost = f" Looking cost {percent(trace.average_overhead)} of the time." if trace.average_overhead is not None else ""
    return f"{trace.label}: {count(len(trace.steps))} of {count(trace.total)} steps were looked at.{broken}{cost}"


def _figures(trace: DepthTrace) -> list[Figure]:
    names = distinct([layer.name for layer in trace.layers], length=48)
    drawn = []
    for field, unit, title in _FIELDS:
        series = [
            Series(name, trace.steps[: len(values)], values)
            for name, layer in zip(names, trace.layers, strict=True)
            if (values := getattr(layer, field))
        ]
        note = "One line a layer, from pale (input) to strong (output), on a logarithmic axis."
        finding = _finding(title, names, [getattr(layer, field) for layer in trace.layers])
        drawn.append(draw_fan(series, Axes("step", unit, y_log=True), finding=finding, note=note))
    return [figure for figure in drawn if figure]


def _finding(title: str, names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    last = {name: series[-1] for name, series in zip(names, values, strict=True) if series}
    if not last:
        return title
    lowest, highest = min(last, key=lambda name: last[name]), max(last, key=lambda name: last[name])
    return f"{title}: at last from {number(last[lowest])} ({lowest}) to {number(last[highest])} ({highest})"


def _layers(trace: DepthTrace) -> Table:
    titles = ("output", "‖∂L/∂output‖₂", "‖∂L/∂θ‖₂", "relative update", "dead units", "saturated")
    return Table(
        "Every layer at the last step looked at",
        (Column("layer", NAME), Column("type"), *(Column(title, NUMBER) for title in titles)),
        tuple((layer.name, layer.type, *_cells(layer)) for layer in trace.layers),
        folded=True,
    )


def _cells(layer: LayerTrace) -> tuple[str, ...]:
    norms = (layer.activation, layer.gradient, layer.weight_gradient, layer.update)
    portions = (layer.dead, layer.saturated)
    return (
        *(number(values[-1]) if values else "–" for values in norms),
        *(percent(values[-1]) if values else "–" for values in portions),
    )
