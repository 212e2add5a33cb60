"""Remedies for vanishing and exploding gradients, measured on one task with and without each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.data.sequences import TEST, SequenceTask
from assay.diagnostics.time import measure_time_trace
from assay.diagnostics.unroll import Unrolled, unrolled
from assay.errors import DivergedError, ModelError, OptionError
from assay.models.sequence import build_sequence_model, set_forget_bias, set_recurrent
from assay.records.recurrence import Problem, RemedyComparison, RemedyEffect, RemedyRun, StateGradients
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.recipes import Recipe
from assay.training.sections import ClipOptions, GradientClip, Nothing
from assay.training.sequence_model import constant_recipe
from assay.training.step import StepContext


def omega(call: Unrolled) -> Tensor:
    """Ω = mean_t (‖δ_{t+1} J_{t+1}‖ / ‖δ_{t+1}‖ − 1)², J_{t+1} = diag(φ'(a_{t+1})) W_hh, over samples and layers.

    δ_t = ∂L/∂z_t and the states count as constants, so only the immediate derivative with respect to W_hh remains, as
    in the paper (eqs. 9 and 10; a mean in place of its sum). Call after ``loss.backward()`` inside
    :func:`~assay.diagnostics.unroll.unrolled`, and call ``.backward()`` on the result.
    Raises :class:`ModelError` for anything but ``nn.RNN``.
    """
    if not isinstance(call.module, nn.RNN):
        raise ModelError(call.name, expected="nn.RNN, for which Ω is defined", got=type(call.module).__name__)
    terms = []
    for track in call.tracks:
        W = getattr(call.module, f"weight_hh_l{track.layer}{'_reverse' if track.reverse else ''}")
        states = torch.stack([h.detach() for h in track.hidden])  # (T, B, H)
        deltas = torch.stack([torch.zeros_like(h) if h.grad is None else h.grad for h in track.hidden])
        slopes = (states > 0).to(states) if call.module.nonlinearity == "relu" else 1 - states.square()
        before = deltas.norm(dim=2)
        after = ((deltas * slopes) @ W).norm(dim=2)
        ratio = torch.where(before > 1e-30, after / before.clamp_min(1e-30), 1.0)
        terms.append((ratio - 1).square().mean())
    return torch.stack(terms).mean()


def regularised(strength: float) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """(model) -> context manager: a forward and backward pass inside of it gets the gradient of ``strength``·Ω added.

    What :func:`~assay.training.loop.fit` takes as ``step_context``. Raises :class:`ModelError` as :func:`omega` does.
    """

    @contextmanager
    def step_context(model: nn.Module) -> Iterator[None]:
        with unrolled(model) as calls:
            yield
        for call in calls:
            (strength * omega(call)).backward()  # type: ignore[no-untyped-call]

    return step_context


EXPLODING_GAIN = 2.0


@dataclass(frozen=True)
class Remedy:
    """One change to the baseline: another cell or initialisation, clipping, weight decay, or a regulariser."""

    name: str
    against: tuple[Problem, ...]
    cell: str = "rnn"
    prepare: Callable[[nn.Module], None] = field(default=lambda model: None)
    clip: ClipOptions = field(default_factory=Nothing)
    weight_decay: float = 0.0
    step_context: StepContext = nullcontext


def _each(kind: type[nn.Module], change: Callable[..., None], *options: object) -> Callable[[nn.Module], None]:
    """A function that changes every module of a kind in a model."""

    def prepare(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, kind):
                change(module, *options)

    return prepare


_orthogonal = _each(nn.RNN, set_recurrent, "orthogonal")
BOTH: tuple[Problem, ...] = ("vanishing", "exploding")
REMEDIES: tuple[Remedy, ...] = (
    Remedy("nothing", BOTH),
    Remedy("clipping by norm, 1", BOTH, clip=GradientClip(name="norm", limit=1.0)),
    Remedy("clipping by value, 0.1", BOTH, clip=GradientClip(name="value", limit=0.1)),
    Remedy("adaptive clipping, 0.02", BOTH, clip=GradientClip(name="adaptive", limit=0.02)),
    Remedy("weight decay, 0.1", BOTH, weight_decay=0.1),
    Remedy("regulariser Ω, 1", BOTH, step_context=regularised(1.0)),
    Remedy("orthogonal start", BOTH, prepare=_orthogonal),
    Remedy("LSTM, forget bias 0", ("vanishing",), cell="lstm", prepare=_each(nn.LSTM, set_forget_bias, 0.0)),
    Remedy("LSTM, forget bias 1", ("vanishing",), cell="lstm", prepare=_each(nn.LSTM, set_forget_bias, 1.0)),
    Remedy("LSTM, forget bias 3", ("vanishing",), cell="lstm", prepare=_each(nn.LSTM, set_forget_bias, 3.0)),
    Remedy("attention", ("vanishing",), cell="transformer"),
)


@checked
def compare_remedies(
    task: SequenceTask,
    *,
    remedies: Sequence[Remedy] = REMEDIES,
    hidden: int = 32,
    steps: int = 400,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
    on_run: Callable[[RemedyRun], None] = lambda run: None,
) -> RemedyComparison:
    """Train a tanh RNN whose gradient vanishes, and one whose gradient explodes, with each remedy and without.

    The first is initialised as torch does, U(±1/√H); the second with an orthogonal recurrent matrix times 2. Every run
    sees the same batches in the same order (Adam, constant learning rate). A remedy *helps against vanishing* when it
    at least doubles the horizon after training or halves the test loss, *against exploding* when it divides the largest
    gradient that reaches the optimizer by ten or the test loss by two, or prevents a divergence.

    ``on_run`` is called with every run as it ends. Raises :class:`OptionError` for numbers below 1.
    """
    for name, value in {"hidden": hidden, "steps": steps, "batch_size": batch_size}.items():
        if value < 1:
            raise OptionError(name, expected="at least 1", got=value)
    started = time.perf_counter()
    recipe = partial(constant_recipe, steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    runs = []
    for problem in BOTH:
        for remedy in remedies:
            if problem in remedy.against:
                runs.append(_run(task, remedy, problem, recipe, hidden=hidden, seed=seed))
                on_run(runs[-1])
    return RemedyComparison(
        task=task.name,
        length=task.length,
        hidden=hidden,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        baseline=task.baseline,
        runs=tuple(runs),
        effects=tuple(judge_remedies(runs)),
        seconds=time.perf_counter() - started,
    )


def _run(
    task: SequenceTask, remedy: Remedy, problem: Problem, make_recipe: Callable[..., Recipe], *, hidden: int, seed: int
) -> RemedyRun:
    started = time.perf_counter()
    shape: dict[str, Any] = {**task.shape}
    model = build_sequence_model(remedy.cell, **shape, hidden=hidden, seed=seed)
    for change in (_explode, remedy.prepare) if problem == "exploding" else (remedy.prepare,):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            change(model)
    inputs, targets = task.draw(256, TEST, 0)
    before = _states(model, task, inputs[:32], targets[:32])
    plain = make_recipe(remedy.name, model=remedy.cell, weight_decay=remedy.weight_decay)
    recipe = plain.model_copy(update={"clip": remedy.clip})
    norms, losses, diverged = _train(model, task, recipe, step_context=remedy.step_context, seed=seed)
    after = _states(model, task, inputs[:32], targets[:32])
    model.eval()
    with torch.no_grad():
        loss = float(task.loss(model(inputs), targets))
    return RemedyRun(
        remedy=remedy.name,
        problem=problem,
        cell=remedy.cell,
        loss=loss if math.isfinite(loss) else math.inf,
        lowest_loss=min(losses, default=math.inf),
        rate_before=before.decay.rate,
        rate_after=after.decay.rate,
        horizon_before=before.decay.horizon,
        horizon_after=after.decay.horizon,
        norms_before=before.norms,
        norms_after=after.norms,
        largest_gradient=max(norms, default=0.0),
        median_gradient=median(norms) if norms else 0.0,
        diverged_at=diverged,
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def _explode(model: nn.Module) -> None:
    """An orthogonal recurrent matrix times 2: every direction doubles wherever tanh is not saturated."""
    _orthogonal(model)
    for name, parameter in model.named_parameters():
        if "weight_hh" in name:
            parameter.mul_(EXPLODING_GAIN)


def _states(model: nn.Module, task: SequenceTask, inputs: Tensor, targets: Tensor) -> StateGradients:
    trace = measure_time_trace(model, inputs, lambda output: task.loss(output, targets), jacobians=0, powers=1)
    cells = [state for state in trace.states if state.part == "cell"]
    return cells[-1] if cells else trace.state(trace.head)


def _train(
    model: nn.Module, task: SequenceTask, recipe: Recipe, *, step_context: StepContext, seed: int
) -> tuple[list[float], list[float], int | None]:
    """Train ``model``: gradient norms after clipping, losses, and the step that diverged (None without)."""
    norms: list[float] = []
    losses: list[float] = []

    def record(metrics: StepMetrics) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(float(nn.utils.get_total_norm(gradients)))  # the metrics hold the norm before clipping
        losses.append(metrics.loss)

    try:
        fit(model, task, recipe=recipe, seed=seed, step_context=step_context, on_step=record)
    except DivergedError:
        return norms, losses, len(losses) + 1
    return norms, losses, None


def judge_remedies(runs: Sequence[RemedyRun]) -> list[RemedyEffect]:
    """Compare each run with the run of its problem that had no remedy."""
    baselines = {run.problem: run for run in runs if run.remedy == "nothing"}
    effects = []
    for run in runs:
        base = baselines.get(run.problem)
        if base is None or run.remedy == "nothing":
            continue
        loss_ratio = base.loss / max(run.loss, 1e-12)
        if run.problem == "vanishing":
            improvement, threshold = _horizon(run) / _horizon(base), 2.0
            measured = f"horizon {_steps(base.horizon_after)} → {_steps(run.horizon_after)}"
        else:
            improvement, threshold = base.largest_gradient / max(run.largest_gradient, 1e-12), 10.0
            measured = f"largest gradient {base.largest_gradient:.3g} → {run.largest_gradient:.3g}"
        because = f"{measured}, loss {base.loss:.3g} → {run.loss:.3g}"
        converged = base.diverged_at is not None and run.diverged_at is None
        verdict: Literal["helps", "does not help", "makes it worse"]
        if run.diverged_at is not None and base.diverged_at is None:
            verdict, because = "makes it worse", f"{because}, diverged at {run.diverged_at}"
        elif improvement >= threshold or loss_ratio >= 2 or converged:
            verdict = "helps"
        else:
            verdict = "makes it worse" if min(improvement, loss_ratio) <= 0.5 else "does not help"
        effects.append(RemedyEffect(remedy=run.remedy, problem=run.problem, verdict=verdict, because=because))
    return effects


def _horizon(run: RemedyRun) -> float:
    """The horizon, at most three sequences: a longer one makes no difference to the task."""
    longest = 3.0 * len(run.norms_after)
    return min(run.horizon_after, longest) if run.horizon_after > 0 else 1e-9


def _steps(horizon: float) -> str:
    return "∞" if math.isinf(horizon) else f"{horizon:.1f}"
