"""Traces as text: tables for the terminal, and the verdicts on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assay.records.accuracy import SequenceAccuracy
from assay.records.base import Record
from assay.records.configuration import NormalizationAudit
from assay.records.finding import Verdict
from assay.records.gradients import Curvature, DepthTrace, GradientFlow
from assay.records.recurrence import RemedyComparison, RemedyRun, TimeTrace

_LAWS = {"exponential": "exp", "polynomial": "poly", "flat": "flat", "undefined": "–"}
_LOOKS = {"error": "bold red", "warn": "yellow", "pass": "green"}


def print_records(records: Sequence[Record], verdicts: Sequence[Verdict], console: Console) -> None:
    """Each record that has a table, then the verdicts."""
    times = [record for record in records if isinstance(record, TimeTrace)]
    for record in records:
        printer = _PRINTERS.get(type(record))
        if printer is not None:
            printer(record, console)
    if times:
        _print_times(times, console)
    for verdict in verdicts:
        if verdict.status != "not run":
            where = f"  [{verdict.where}]" if verdict.where else ""
            line = f"{verdict.status:5} {verdict.rule}  {verdict.claim}: {verdict.measured}{where}"
            console.print(escape(line), style=_LOOKS[verdict.status], highlight=False)


def print_run(run: RemedyRun, console: Console) -> None:
    """One line as soon as a run has ended."""
    line = f"{run.problem}: {run.remedy}, loss {run.loss:.4f}, horizon {steps(run.horizon_after)}, {run.seconds:.1f} s"
    console.print(escape(line), style="dim", highlight=False)


def _print_flow(flow: Record, console: Console) -> None:
    assert isinstance(flow, GradientFlow)
    table = _table("layer", "type", ">output", ">∂ℓ/∂output", ">‖∂L/∂W‖/‖W‖", ">dead")
    for layer in flow.layers:
        dead = "" if layer.dead is None else f"{100 * layer.dead:.0f} %"
        row = (f"{layer.activation:.3g}", f"{layer.gradient_per_sample:.3g}", f"{layer.relative_gradient:.2e}", dead)
        table.add_row(escape(layer.name), layer.type, *row)
    console.print(table)
    if flow.decay_per_layer is not None:
        console.print(f"gradient ×{flow.decay_per_layer:.3f} a layer towards the input, n = {flow.n}", highlight=False)


def _print_normalization(audit: Record, console: Console) -> None:
    assert isinstance(audit, NormalizationAudit)
    table = _table("pixels", ">accuracy", ">95 % interval")
    for way in audit.conventions:
        table.add_row(way.convention, f"{100 * way.accuracy:.1f} %", f"{100 * way.low:.1f} to {100 * way.high:.1f} %")
    console.print(table)
    line = f"{audit.stem or 'the first layer'} sees mean {audit.stem_mean:.3f}, deviation {audit.stem_std:.3f}"
    if audit.reestimated is not None:
        line += (
            f"; statistics as stored {100 * audit.before.accuracy:.1f} %, "
            f"measured anew {100 * audit.reestimated.accuracy:.1f} % (n = {audit.n})"
        )
    console.print(escape(line), highlight=False)


def _print_depth(trace: Record, console: Console) -> None:
    assert isinstance(trace, DepthTrace)
    table = _table("layer", ">output", ">‖∂L/∂output‖", ">‖∂L/∂θ‖", ">‖Δθ‖/‖θ‖")
    for layer in trace.layers:
        table.add_row(
            escape(layer.name),
            *(_change(values) for values in (layer.activation, layer.gradient, layer.weight_gradient, layer.update)),
        )
    console.print(table)
    cost = ""
    if trace.overhead is not None and trace.average_overhead is not None:
        cost = f"; a sampled step took {100 * trace.overhead:+.1f} %, all steps {100 * trace.average_overhead:+.1f} %"
    console.print(f"steps {', '.join(map(str, trace.steps))} of {trace.total}: first → last{cost}", highlight=False)


def _print_times(traces: Sequence[TimeTrace], console: Console) -> None:
    table = _table("model", ">g a step", ">horizon", "law", ">‖∂L/∂z‖ first", ">last", ">ρ(W)", ">‖W‖", ">ln σ₁/T")
    for trace in traces:
        state, plain = trace.state(trace.head), [m for m in trace.matrices if not m.gate]
        rate = next((p.lyapunov for p in trace.jacobians), math.nan)
        table.add_row(
            escape(trace.label),
            f"{state.decay.rate:.3f}",
            steps(state.decay.horizon),
            _LAWS[state.decay.law],
            f"{state.norms[0]:.1e}",
            f"{state.norms[-1]:.1e}",
            f"{plain[0].spectral_radius:.3f}" if plain else "",
            f"{plain[0].norm:.3f}" if plain else "",
            "" if math.isnan(rate) else f"{rate:+.3f}",
        )
    trained = f", {traces[0].trained} steps of training" if traces[0].trained else ""
    console.print(f"{traces[0].task} over {traces[0].length} steps{trained}", style="dim", highlight=False)
    console.print(table)
    for trace in traces:
        for line in _said(trace):
            console.print(escape(f"{trace.label}: {line}"), highlight=False)


def _said(trace: TimeTrace) -> list[str]:
    said = [sentence for matrix in trace.matrices if not matrix.gate for sentence in matrix.proves]
    said += [f"{c.name}: median time constant of the gates {c.median:.1f} steps" for c in trace.time_constants]
    if trace.fused_gap is not None and trace.parameter_gap is not None:
        said.append(
            f"stepped against fused kernel: output within {trace.fused_gap:.1e}, "
            f"sum of the steps' parameter gradients within {trace.parameter_gap:.1e}"
        )
    if trace.attention is not None:
        entropies = [e for layer in trace.attention.layers for e in layer.relative_entropy]
        said.append(
            f"path length {trace.attention.path}; entropy {100 * sum(entropies) / len(entropies):.0f} % of uniform"
        )
    return said


def _print_curvature(found: Record, console: Console) -> None:
    assert isinstance(found, Curvature)
    values = ", ".join(f"{value:.4g}" for value in found.eigenvalues)
    lines = (
        f"Hessian: λ = {values} (residual {found.residual:.1e}), smallest {found.smallest:.3g}",
        f"trace {found.trace:.4g} ± {found.trace_error:.2g}",
        f"plain gradient descent needs a rate below 2/λmax = {found.critical_learning_rate:.3g}"
        + ("" if found.learning_rate is None else f", here {found.learning_rate:g}"),
    )
    console.print("; ".join(lines), highlight=False)


def _print_remedies(found: Record, console: Console) -> None:
    assert isinstance(found, RemedyComparison)
    table = _table("problem", "remedy", ">horizon before", ">after", ">largest ‖g‖", ">loss", "")
    effects = {(e.remedy, e.problem): e.verdict for e in found.effects}
    for run in found.runs:
        verdict = effects.get((run.remedy, run.problem), "")
        table.add_row(
            run.problem,
            run.remedy,
            steps(run.horizon_before),
            steps(run.horizon_after),
            f"{run.largest_gradient:.3g}",
            f"{run.loss:.4f}" if run.diverged_at is None else f"diverged at {run.diverged_at}",
            verdict,
        )
    console.print(table)
    console.print(
        f"{found.task}, {found.length} steps long, {found.steps} updates, seed {found.seed}; "
        f"a loss of {found.baseline:.4f} needs no memory",
        highlight=False,
    )
    for effect in found.effects:
        if effect.verdict != "does not help":
            line = f"{effect.remedy} {effect.verdict} against {effect.problem} gradients: {effect.because}"
            console.print(escape(line), highlight=False)


def _print_sequence_accuracy(found: Record, console: Console) -> None:
    assert isinstance(found, SequenceAccuracy)
    line = (
        f"{found.label}: test loss {found.loss:.4g}, without memory {found.baseline:.4g}; "
        f"{100 * found.accuracy:.1f} % {found.right_is} (n = {found.n:,})"
    )
    console.print(escape(line), highlight=False)


_PRINTERS: dict[type[Record], Callable[[Record, Console], None]] = {
    GradientFlow: _print_flow,
    NormalizationAudit: _print_normalization,
    DepthTrace: _print_depth,
    SequenceAccuracy: _print_sequence_accuracy,
    Curvature: _print_curvature,
    RemedyComparison: _print_remedies,
}


def steps(horizon: float) -> str:
    """A horizon in words: 9.2, ∞, or a dash where there is none."""
    if math.isnan(horizon):
        return "–"
    return "∞" if math.isinf(horizon) else f"{horizon:.1f}"


def _change(values: Sequence[float]) -> str:
    return f"{values[0]:.2g}→{values[-1]:.2g}" if values else ""


def _table(*titles: str) -> Table:
    """Columns by title; ``>`` in front of one sets it right."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title.removeprefix(">"), justify="right" if title.startswith(">") else "left")
    return table
