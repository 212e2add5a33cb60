"""Gradient norms over depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from assay.records.gradients import Curvature, DepthTrace, GradientFlow
from assay.report.curves import Axes, Series, draw_curves, draw_fan
from assay.report.parts import Facts, Figure, Section, Table, build_section, tabulate
from assay.wording import count, distinct, number, percent, plural

_SIGNALS = (
    ("weight_gradient", "‖∂L/∂W‖₂ of the weight"),
    ("activation_gradient", "∂L/∂output, root mean square"),
    ("activation", "output, root mean square"),
)


def gradient_flow_section(flow: GradientFlow) -> Section:
    summary = f"One labelled batch of {count(flow.n)} images in evaluation mode, mean loss {number(flow.loss)} nats."
    if flow.first_non_finite is not None:
        summary += f" The first layer with numbers that are not finite is {flow.first_non_finite}."
    parts = (_over_depth(flow), _layers(flow))
    return build_section("gradient-flow", "Gradient flow over depth", summary, *parts, records=[flow])


def _over_depth(flow: GradientFlow) -> Figure | None:
    series = [
        Series(
            title,
            [layer.depth for layer in flow.layers],
            [getattr(layer, field) for layer in flow.layers],
            tips=[f"{each.name} ({each.type}), {title}: {number(getattr(each, field))}" for each in flow.layers],
        )
        for field, title in _SIGNALS
    ]
    rate = flow.decay_per_layer
    if rate is None:
        finding = "Gradient norms from input to output"
    elif 0.95 <= rate <= 1.05:
        finding = f"Gradients neither vanish nor explode: they change by ×{number(rate)} a layer"
    else:
        finding = f"Gradients {'shrink' if rate < 1 else 'grow'} by ×{number(rate)} a layer on their way to the input"
    left_out = sum(getattr(layer, field) <= 0 for field, _ in _SIGNALS for layer in flow.layers)
    note = "Flat lines are healthy; a slope means vanishing or exploding gradients."
    if left_out:
        note += f" {count(left_out)} values that are zero have no place on a logarithmic axis; see the table."
    axes = Axes("layer, from input to output", "norm (logarithmic)", y_log=True)
    return draw_curves(series, axes, finding=finding, note=note, full=True)


def _layers(flow: GradientFlow) -> Table:
    return tabulate(
        "Every layer",
        flow.layers,
        {
            "`layer": lambda layer: layer.name,
            "type": lambda layer: layer.type,
            ">‖W‖₂": lambda layer: number(layer.weight_norm),
            ">‖∂L/∂W‖₂": lambda layer: number(layer.weight_gradient),
            ">relative": lambda layer: number(layer.relative_gradient),
            ">output": lambda layer: number(layer.activation),
            ">∂L/∂output": lambda layer: number(layer.activation_gradient),
            ">dead units": lambda layer: "–" if layer.dead is None else percent(layer.dead),
            ">not finite": lambda layer: count(layer.non_finite),
        },
        folded=True,
    )


def curvature_section(curvature: Curvature) -> Section:
    largest = number(curvature.eigenvalues[0]) if curvature.eigenvalues else "–"
    facts = (
        ("largest eigenvalue λ", f"{largest} ± {number(curvature.residual)}"),
        ("largest stable learning rate, 2/λ", number(curvature.critical_learning_rate)),
        *(() if curvature.learning_rate is None else (("learning rate in use", number(curvature.learning_rate)),)),
        ("largest eigenvalues", ", ".join(number(value) for value in curvature.eigenvalues[:10])),
        ("smallest eigenvalue found", number(curvature.smallest)),
        ("trace", f"{number(curvature.trace)} ± {number(curvature.trace_error)} (standard error)"),
        ("measured on", f"{plural(curvature.n, 'sample')}, {count(curvature.parameters)} parameters, "
         f"{plural(curvature.iterations, 'Lanczos iteration')}"),
    )  # fmt: skip
    summary = "The Hessian of the mean loss, in evaluation mode. " + (
        "It has negative curvature: the loss is not convex here."
        if curvature.smallest < 0
        else "No direction of negative curvature was found."
    )
    return Section("curvature", "Curvature of the loss", summary, (Facts(facts),), records=(curvature,))


_FIELDS = (
    ("gradient", "‖∂L/∂output‖₂", "Gradients of the outputs"),
    ("weight_gradient", "‖∂L/∂θ‖₂", "Gradients of the parameters"),
    ("update", "‖Δθ‖₂ / ‖θ‖₂", "Relative updates"),
    ("activation", "root mean square", "Outputs"),
)


def depth_trace_section(traces: Sequence[DepthTrace]) -> Section:
    parts = [part for trace in traces for part in (*_figures(trace), _layers_depth_trace(trace))]
    summary = " ".join(_sentence(trace) for trace in traces)
    return build_section("depth-trace", "Gradients while training", summary, *parts, records=traces)


def _sentence(trace: DepthTrace) -> str:
    broken = f" {trace.first_non_finite} was the first to turn non-finite." if trace.first_non_finite else ""
    cost = f" Looking cost {percent(trace.average_overhead)} of the time." if trace.average_overhead is not None else ""
    return f"{trace.label}: {count(len(trace.steps))} of {count(trace.total)} steps were looked at.{broken}{cost}"


def _figures(trace: DepthTrace) -> list[Figure | None]:
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
    return drawn


def _finding(title: str, names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    last = {name: series[-1] for name, series in zip(names, values, strict=True) if series}
    if not last:
        return title
    lowest, highest = min(last, key=lambda name: last[name]), max(last, key=lambda name: last[name])
    return f"{title}: at last from {number(last[lowest])} ({lowest}) to {number(last[highest])} ({highest})"


def _layers_depth_trace(trace: DepthTrace) -> Table:
    def last(values: Sequence[float], word: Callable[[float], str] = number) -> str:
        return word(values[-1]) if values else "–"

    return tabulate(
        "Every layer at the last step looked at",
        trace.layers,
        {
            "`layer": lambda layer: layer.name,
            "type": lambda layer: layer.type,
            ">output": lambda layer: last(layer.activation),
            ">‖∂L/∂output‖₂": lambda layer: last(layer.gradient),
            ">‖∂L/∂θ‖₂": lambda layer: last(layer.weight_gradient),
            ">relative update": lambda layer: last(layer.update),
            ">dead units": lambda layer: last(layer.dead, percent),
            ">saturated": lambda layer: last(layer.saturated, percent),
        },
        folded=True,
    )
