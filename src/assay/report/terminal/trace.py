"""What ``assay trace`` prints: a table for each kind of record, and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from assay.records.accuracy import SequenceAccuracy
from assay.records.base import Record
from assay.records.configuration import NormalizationAudit
from assay.records.finding import Verdict
from assay.records.gradients import Curvature, DepthTrace, GradientFlow
from assay.records.recurrence import RemedyComparison, RemedyRun, TimeTrace
from assay.report.terminal.layout import STYLES, print_items, print_line, print_table, tail
from assay.wording import clip, status

NUMBERS = 60  # columns of the terminal that the numbers of a layer take

_LAWS = {"exponential": "exp", "polynomial": "poly", "flat": "flat", "undefined": "–"}


def print_traces(records: Sequence[Record], verdicts: Sequence[Verdict], console: Console) -> None:
    """Each record that has a table, then the verdicts that could be judged."""
    for record in records:
        if type(record) in _PRINTERS:
            _PRINTERS[type(record)](record, console)
    times = [record for record in records if isinstance(record, TimeTrace)]
    if times:
        _print_times(times, console)
    for verdict in verdicts:
        if verdict.status != "not run":
            where = f"  [{verdict.where}]" if verdict.where else ""
            line = f"{status(verdict.status):5} {verdict.rule}  {verdict.statement} · {verdict.measured}{where}"
            print_line(console, line, STYLES[verdict.status], wrap=False)


def print_remedy_run(run: RemedyRun, console: Console) -> None:
    """One line as soon as a run has ended."""
    horizon = format_horizon(run.horizon_after)
    line = f"{run.problem}: {run.remedy}, loss {run.loss:.4f}, horizon {horizon}, {run.seconds:.1f} s"
    print_line(console, line, "dim", wrap=False)


def _print_flow(flow: GradientFlow, console: Console) -> None:
    room = _room_for_names(console)
    print_items(
        console,
        flow.layers,
        {
            "layer": lambda layer: tail(layer.name, room),
            "type": lambda layer: clip(layer.type, 14),
            ">output": lambda layer: f"{layer.activation:.3g}",
            ">∂ℓ/∂output": lambda layer: f"{layer.gradient_per_sample:.3g}",
            ">‖∂L/∂W‖/‖W‖": lambda layer: f"{layer.relative_gradient:.2e}",
            ">dead": lambda layer: "" if layer.dead is None else f"{100 * layer.dead:.0f} %",
        },
    )
    if flow.decay_per_layer is not None:
        print_line(console, f"gradient ×{flow.decay_per_layer:.3f} a layer towards the input, n = {flow.n}")


def _print_normalization(audit: NormalizationAudit, console: Console) -> None:
    rows = (
        (way.convention, f"{100 * way.accuracy:.1f} %", f"{100 * way.low:.1f} to {100 * way.high:.1f} %")
        for way in audit.conventions
    )
    print_table(console, ("pixels", ">accuracy", ">95 % interval"), rows)
    line = f"{audit.stem or 'the first layer'} sees mean {audit.stem_mean:.3f}, deviation {audit.stem_std:.3f}"
    if audit.reestimated is not None:
        before, anew = 100 * audit.before.accuracy, 100 * audit.reestimated.accuracy
        line += f"; statistics as stored {before:.1f} %, measured anew {anew:.1f} % (n = {audit.n})"
    elif audit.not_reestimated:
        line += f"; statistics could not be measured anew: {audit.not_reestimated}"
    print_line(console, line, wrap=False)


def _room_for_names(console: Console) -> int:
    """What the columns of numbers leave, so that a row is a line."""
    return max(18, console.width - NUMBERS)


def _print_depth(trace: DepthTrace, console: Console) -> None:
    room = _room_for_names(console)
    rows = (
        (tail(layer.name, room), *(f"{values[0]:.2g}→{values[-1]:.2g}" if values else "" for values in norms))
        for layer in trace.layers
        for norms in [(layer.activation, layer.gradient, layer.weight_gradient, layer.update)]
    )
    print_table(console, ("layer", ">output", ">‖∂L/∂output‖", ">‖∂L/∂θ‖", ">‖Δθ‖/‖θ‖"), rows)
    cost = ""
    if trace.overhead is not None and trace.average_overhead is not None:
        cost = f"; a sampled step took {100 * trace.overhead:+.1f} %, all steps {100 * trace.average_overhead:+.1f} %"
    steps = f"steps {', '.join(map(str, trace.steps))} of {trace.total}: first → last"
    print_line(console, f"{steps}{cost}", wrap=False)


def _print_times(traces: Sequence[TimeTrace], console: Console) -> None:
    trained = f", {traces[0].trained} steps of training" if traces[0].trained else ""
    print_line(console, f"{traces[0].task} over {traces[0].length} steps{trained}", "dim", wrap=False)
    rows = []
    for trace in traces:
        state, plain = trace.state(trace.head), [matrix for matrix in trace.matrices if not matrix.gate]
        rate = next((jacobian.lyapunov for jacobian in trace.jacobians), math.nan)
        rows.append(
            (
                trace.label,
                f"{state.decay.rate:.3f}",
                format_horizon(state.decay.horizon),
                _LAWS[state.decay.law],
                f"{state.norms[0]:.1e}",
                f"{state.norms[-1]:.1e}",
                f"{plain[0].spectral_radius:.3f}" if plain else "",
                f"{plain[0].norm:.3f}" if plain else "",
                "" if math.isnan(rate) else f"{rate:+.3f}",
            )
        )
    titles = ("model", ">g a step", ">horizon", "law", ">‖∂L/∂z‖ first", ">last", ">ρ(W)", ">‖W‖", ">ln σ₁/T")
    print_table(console, titles, rows)
    for trace in traces:
        for line in _details(trace):
            print_line(console, f"{trace.label}: {line}", wrap=False)


def _details(trace: TimeTrace) -> list[str]:
    """What the matrices prove, how long the gates hold, and whether two ways of computing agree."""
    lines = [sentence for matrix in trace.matrices if not matrix.gate for sentence in matrix.proves]
    lines += [f"{c.name}: median time constant of the gates {c.median:.1f} steps" for c in trace.time_constants]
    if trace.fused_gap is not None and trace.parameter_gap is not None:
        lines.append(
            f"stepped against fused kernel: output within {trace.fused_gap:.1e}, "
            f"sum of the steps' parameter gradients within {trace.parameter_gap:.1e}"
        )
    if trace.attention is not None:
        entropies = [e for layer in trace.attention.layers for e in layer.relative_entropy]
        mean = 100 * sum(entropies) / len(entropies)
        lines.append(f"path length {trace.attention.path}; entropy {mean:.0f} % of uniform")
    return lines


def _print_curvature(curvature: Curvature, console: Console) -> None:
    values = ", ".join(f"{value:.4g}" for value in curvature.eigenvalues)
    parts = (
        f"Hessian: λ = {values} (residual {curvature.residual:.1e}), smallest {curvature.smallest:.3g}",
        f"trace {curvature.trace:.4g} ± {curvature.trace_error:.2g}",
        f"plain gradient descent needs a rate below 2/λmax = {curvature.critical_learning_rate:.3g}"
        + ("" if curvature.learning_rate is None else f", here {curvature.learning_rate:g}"),
    )
    print_line(console, "; ".join(parts))


def _print_remedies(comparison: RemedyComparison, console: Console) -> None:
    effects = {(effect.remedy, effect.problem): effect.verdict for effect in comparison.effects}
    print_items(
        console,
        comparison.runs,
        {
            "problem": lambda run: run.problem,
            "remedy": lambda run: run.remedy,
            ">horizon before": lambda run: format_horizon(run.horizon_before),
            ">after": lambda run: format_horizon(run.horizon_after),
            ">largest ‖g‖": lambda run: f"{run.largest_gradient:.3g}",
            ">loss": lambda run: f"{run.loss:.4f}" if run.diverged_at is None else f"diverged at {run.diverged_at}",
            "": lambda run: effects.get((run.remedy, run.problem), ""),
        },
    )
    setting = f"{comparison.task}, {comparison.length} steps long, {comparison.steps} updates, seed {comparison.seed}"
    print_line(console, f"{setting}; a loss of {comparison.baseline:.4f} needs no memory", wrap=False)
    for effect in comparison.effects:
        if effect.verdict != "does not help":
            line = f"{effect.remedy} {effect.verdict} against {effect.problem} gradients: {effect.because}"
            print_line(console, line, wrap=False)


def _print_sequence_accuracy(accuracy: SequenceAccuracy, console: Console) -> None:
    losses = f"test loss {accuracy.loss:.4g}, without memory {accuracy.baseline:.4g}"
    share = f"{100 * accuracy.accuracy:.1f} % {accuracy.right_is} (n = {accuracy.n:,})"
    print_line(console, f"{accuracy.label}: {losses}; {share}", wrap=False)


_PRINTERS: dict[type[Record], Callable[[Any, Console], None]] = {
    GradientFlow: _print_flow,
    NormalizationAudit: _print_normalization,
    DepthTrace: _print_depth,
    SequenceAccuracy: _print_sequence_accuracy,
    Curvature: _print_curvature,
    RemedyComparison: _print_remedies,
}


def format_horizon(horizon: float) -> str:
    """A horizon in words: 9.2, ∞, or a dash where there is none."""
    if math.isnan(horizon):
        return "–"
    return "∞" if math.isinf(horizon) else f"{horizon:.1f}"
