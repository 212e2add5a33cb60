"""How gradients travel through time: recurrences, gates and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

from assay.records.accuracy import SequenceAccuracy
from assay.records.recurrence import (
    AttentionPaths,
    RecurrentMatrix,
    RemedyComparison,
    RemedyRun,
    StateGradients,
    TimeTrace,
)
from assay.report.curves import Axes, Series, draw_curves
from assay.report.parts import Facts, Figure, Part, Section, Table, build_section, table, tabulate
from assay.wording import count, distinct, interval, listed, number, percent, plural, seconds

MOST_MATRICES = 8
_WAYS = {
    "exponential": "by the factor {rate} a step",
    "polynomial": "like distance to the power −{exponent}",
    "flat": "hardly",
    "undefined": "in no way that could be fitted",
}


def recurrence_section(traces: Sequence[TimeTrace]) -> Section:
    parts = [_compared(traces), *(part for trace in traces for part in _trace_parts(trace))]
    summary = " ".join(_sentence(trace) for trace in traces)
    return build_section("time-trace", "Gradients through time", summary, *parts, records=traces)


def _sentence(trace: TimeTrace) -> str:
    task = f" ({trace.task})" if trace.task else ""
    trained = f" after {plural(trace.trained, 'step')} of training" if trace.trained else ""
    sequences = f"{count(trace.n)} sequences of {count(trace.length)} steps"
    return f"{trace.label}{task}: {sequences}, mean loss {number(trace.loss)}{trained}."


def _compared(traces: Sequence[TimeTrace]) -> Figure | None:
    """Several models in one chart, from the loss backwards."""
    if len(traces) < 2:
        return None
    names = distinct([trace.label for trace in traces])
    norms = [trace.state(trace.head).norms[::-1] for trace in traces]
    series = [Series(name, range(len(values)), values) for name, values in zip(names, norms, strict=True)]
    horizons = {name: trace.state(trace.head).decay.horizon for name, trace in zip(names, traces, strict=True)}
    known = [name for name in names if not math.isnan(horizons[name])]
    finding = "How far back the gradients reach"
    if known:
        short, far = min(known, key=horizons.__getitem__), max(known, key=horizons.__getitem__)
        finding = f"{far} reaches back furthest, {short} least: a horizon of {number(horizons[short])} steps"
    note = "The loss is at the left end; to the right, further into the past."
    axes = Axes("steps before the last", "‖∂ℓ/∂state‖, root mean square", y_log=True)
    return draw_curves(series, axes, finding=finding, note=note, full=True)


def _trace_parts(trace: TimeTrace) -> list[Part | None]:
    parts: list[Part | None] = [_over_time(trace), _states(trace.states)]
    parts += [_powers(matrix) for matrix in trace.matrices[:MOST_MATRICES]]
    parts += [_matrices(trace.matrices), _jacobians(trace), _gates(trace), _facts(trace)]
    if trace.attention is not None:
        parts += _attention(trace.attention)
    return parts


def _over_time(trace: TimeTrace) -> Figure | None:
    # the state that stands for the model first, so that it has the first colour
    states = sorted(trace.states, key=lambda state: state.name != trace.head)
    names = distinct([state.name + (", reversed" if state.reverse else "") for state in states])
    series = [Series(name, range(len(state.norms)), state.norms) for name, state in zip(names, states, strict=True)]
    head = next(iter(states), None)
    finding = f"The gradient of {head.name} changes {_way(head)} towards the past" if head else "Gradients over time"
    note = "The loss is at the right end. A line that falls to the left: vanishing gradients."
    axes = Axes("time step", "‖∂ℓ/∂state‖, root mean square", y_log=True)
    return draw_curves(series, axes, finding=finding, note=note, full=True)


def _way(state: StateGradients) -> str:
    decay = state.decay
    return _WAYS[decay.law].format(rate=number(decay.rate), exponent=number(decay.exponent))


def _states(states: Sequence[StateGradients]) -> Table:
    return tabulate(
        "Every state and the law its gradient follows",
        states,
        {
            "`state": lambda state: state.name,
            "part": lambda state: state.part + (", reversed" if state.reverse else ""),
            "law": lambda state: state.decay.law,
            ">rate g": lambda state: number(state.decay.rate),
            ">exponent p": lambda state: number(state.decay.exponent),
            ">horizon (steps)": lambda state: number(state.decay.horizon),
            ">R² exponential": lambda state: number(state.decay.r2_exponential),
            ">R² polynomial": lambda state: number(state.decay.r2_polynomial),
            ">exactly zero": lambda state: count(state.zero),
            ">not finite": lambda state: count(state.non_finite),
        },
        folded=True,
    )


def _matrices(matrices: Sequence[RecurrentMatrix]) -> Table | None:
    if not matrices:
        return None
    return tabulate(
        "What the recurrent matrices prove",
        matrices,
        {
            "`matrix": _matrix_name,
            ">ρ(W)": lambda matrix: number(matrix.spectral_radius),
            ">‖W‖₂": lambda matrix: number(matrix.norm),
            ">non-normality": lambda matrix: number(matrix.non_normality),
            ">peak of ‖Wᵏ‖₂": lambda matrix: f"{number(matrix.peak)} at k = {matrix.peak_at}",
            "hence": lambda matrix: " ".join(matrix.proves),
        },
    )


def _matrix_name(matrix: RecurrentMatrix) -> str:
    return matrix.name + (f", {matrix.gate}" if matrix.gate else "")


def _powers(matrix: RecurrentMatrix) -> Figure | None:
    curves = (("ρᵏ, below", matrix.log_lower), ("‖Wᵏ‖₂", matrix.log_power), ("‖W‖₂ᵏ, above", matrix.log_upper))
    series = [Series(title, matrix.k, [value / math.log(10) for value in values]) for title, values in curves]
    finding = f"{_matrix_name(matrix)}: ρ = {number(matrix.spectral_radius)}, ‖W‖₂ = {number(matrix.norm)}"
    note = (
        f"The power lies between the two bounds; its peak is {number(matrix.peak)} at k = {matrix.peak_at}, its "
        f"non-normality {number(matrix.non_normality)}."
    )
    axes = Axes("k, steps back in time", "power of ten")
    return draw_curves(series, axes, finding=finding, note=note)


def _jacobians(trace: TimeTrace) -> Figure | None:
    series = [
        Series(f"{jacobian.name}, {end}", range(len(values)), [value / math.log(10) for value in values])
        for jacobian in trace.jacobians
        for end, values in (("largest", jacobian.log_largest), ("smallest", jacobian.log_smallest))
    ]
    rates = listed([f"{number(jacobian.lyapunov)} ({jacobian.name})" for jacobian in trace.jacobians])
    finding = f"The worst direction changes by {rates} a step (natural logarithm)"
    axes = Axes("steps back in time", "power of ten")
    note = "Extreme singular values of ∂z_T/∂z_t along one real trajectory."
    return draw_curves(series, axes, finding=finding, note=note) if series else None


def _gates(trace: TimeTrace) -> Table | None:
    if not trace.gates:
        return None
    titles = ("mean", "open (> 0.9)", "shut (< 0.1)", "5 %", "25 %", "50 %", "75 %", "95 %")
    rows = (
        (g.name, g.gate, number(g.mean), percent(g.open), percent(g.shut), *map(number, g.quantiles))
        for g in trace.gates
    )
    caption = "Gates, over all steps, samples and units"
    return table(caption, ("`layer", "gate", *(f">{title}" for title in titles)), rows)


def _facts(trace: TimeTrace) -> Facts | None:
    pairs = [(f"median time constant, {units.name}", f"{number(units.median)} steps") for units in trace.time_constants]
    if trace.fused_gap is not None:
        gap = f"differ by {number(trace.fused_gap)} of the largest output"
        pairs.append(("fused kernels against step by step", gap))
    if trace.parameter_gap is not None:
        pairs.append(("parameter gradients, both ways", f"differ by {number(trace.parameter_gap)} of the largest"))
    return Facts(tuple(pairs)) if pairs else None


def _attention(attention: AttentionPaths) -> list[Part | None]:
    numbers = tabulate(
        f"Attention; the farthest two positions are {count(attention.path)} layers apart",
        attention.layers,
        {
            "`layer": lambda layer: layer.name,
            ">heads": lambda layer: count(layer.heads),
            ">length": lambda layer: count(layer.length),
            ">entropy a head (of its greatest)": lambda layer: ", ".join(map(percent, layer.relative_entropy[:8])),
            ">distance": lambda layer: ", ".join(map(number, layer.distance[:8])),
        },
    )
    series = Series("rollout", range(len(attention.rollout)), attention.rollout)
    finding, note = "What the last position draws from, through all layers", "Attention rollout (Abnar & Zuidema 2020)."
    return [numbers, draw_curves([series], Axes("position", "share of attention"), finding=finding, note=note)]


def remedies_section(comparisons: Sequence[RemedyComparison]) -> Section:
    parts: list[Part | None] = []
    for comparison in comparisons:
        effects = tabulate(
            "What each remedy did",
            comparison.effects,
            {
                "remedy": lambda effect: effect.remedy,
                "against": lambda effect: effect.problem,
                "verdict": lambda effect: effect.verdict,
                "because": lambda effect: effect.because,
            },
        )
        problems = tuple(dict.fromkeys(run.problem for run in comparison.runs))
        figures = [_gradients([run for run in comparison.runs if run.problem == problem]) for problem in problems]
        parts += [effects, *figures, _runs(comparison)]
    summary = " ".join(
        f"{one.task}: length {count(one.length)}, {count(one.hidden)} hidden units, {count(one.steps)} steps of "
        f"{count(one.batch_size)}, learning rate {number(one.learning_rate)}, seed {one.seed}; "
        f"loss of a constant prediction {number(one.baseline)}. {seconds(one.seconds)}."
        for one in comparisons
    )
    return build_section("remedies", "Remedies", summary, *parts, records=comparisons)


def _gradients(runs: list[RemedyRun]) -> Figure | None:
    names = distinct([f"{run.remedy}, {run.cell}" for run in runs])
    series = [
        Series(name, range(len(run.norms_before)), run.norms_before) for name, run in zip(names, runs, strict=True)
    ]
    effective = [name for name, run in zip(names, runs, strict=True) if run.loss < runs[0].loss]
    verb = "lowers" if len(effective) == 1 else "lower"
    against = f"Against {runs[0].problem} gradients"
    finding = (
        f"{against} {listed(effective[:3])} {verb} the loss" if effective else f"{against} nothing lowers the loss"
    )
    note = "Before training, by time step; the loss is at the right end."
    return draw_curves(series, Axes("time step", "‖∂L/∂z‖₂", y_log=True), finding=finding, note=note)


def _runs(comparison: RemedyComparison) -> Table:
    return tabulate(
        "Every run",
        comparison.runs,
        {
            "remedy": lambda run: run.remedy,
            "against": lambda run: run.problem,
            "cell": lambda run: run.cell,
            ">loss": lambda run: (
                number(run.loss) + (f" (diverged at step {run.diverged_at})" if run.diverged_at is not None else "")
            ),
            ">lowest": lambda run: number(run.lowest_loss),
            ">rate before": lambda run: number(run.rate_before),
            ">rate after": lambda run: number(run.rate_after),
            ">horizon after": lambda run: number(run.horizon_after),
            ">largest gradient": lambda run: number(run.largest_gradient),
            ">median": lambda run: number(run.median_gradient),
            ">time": lambda run: seconds(run.seconds),
        },
        folded=True,
    )


def sequences_section(records: Sequence[SequenceAccuracy]) -> Section:
    numbers = tabulate(
        "Test loss and accuracy",
        records,
        {
            "`model": lambda one: one.label,
            "task": lambda one: one.task,
            ">length": lambda one: count(one.length),
            ">test loss": lambda one: number(one.loss),
            ">without memory": lambda one: number(one.baseline),
            ">right": lambda one: percent(one.accuracy),
            ">95 % interval": interval,
        },
    )
    tasks = {(one.task, one.length): one for one in records}.values()
    summary = " ".join(
        f"{one.task} over {plural(one.length, 'step')}: loss of the best prediction without memory "
        f"{number(one.baseline)} ({one.loss_unit}; {one.baseline_is}). Correct: {one.right_is}."
        for one in tasks
    )
    return Section("sequences", "Sequence tasks", summary, (numbers,), records=tuple(records))
