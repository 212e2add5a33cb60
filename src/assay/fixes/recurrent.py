"""Fixes that only show in training, a forget bias and gradient clipping: two short trainings from one start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from assay.comparison.differences import paired_difference
from assay.diagnostics.time import measure_gradients_over_time
from assay.evaluate import predict
from assay.fixes.fix import Change, Fix, FixContext, RefusedError
from assay.models.calls import copied
from assay.models.sequence import set_forget_bias
from assay.records.comparison import Reading
from assay.records.recurrence import TimeTrace
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.recipes import Recipe
from assay.training.sections import ClipOptions, GradientClip, Nothing
from assay.verdict import judge

IMAGES, STEPS, BATCH = 2_000, 60, 64
LIMIT = 1.0


@dataclass(frozen=True, eq=False)
class _ShortTraining:
    """``correct`` bool (N,) of the tested images afterwards, gradients over time, last loss, largest gradient norm."""

    correct: torch.Tensor
    trace: TimeTrace
    loss: float
    largest: float

    @property
    def horizon(self) -> float:
        return self.trace.state(self.trace.head).decay.horizon


def _raise_forget_bias(context: FixContext) -> Change:
    layers = [module for module in context.model.modules() if isinstance(module, nn.LSTM)]
    if not layers:
        raise RefusedError(
            "no LSTM, hence no forget bias; replacing the cell or its initialisation is no mechanical change"
        )
    length = measure_gradients_over_time(context.model, context.check.probed).length
    # A gate σ(b) has a time constant of about 1/(1 − σ(b)) = 1 + exp(b) steps; Tallec & Ollivier 2018, arXiv:1804.11188
    bias = max(1.0, float(torch.tensor(length - 1.0).clamp_min(1).log()))

    def prepare(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, nn.LSTM):
                set_forget_bias(module, bias)

    before, after = _train(context, lambda model: None, Nothing()), _train(context, prepare, Nothing())
    verdict = next(each for each in judge([after.trace]) if each.rule == "A411")
    return Change(
        f"{_describe(context)} with a forget bias of {bias:.2f} = ln(T − 1) at T = {length} steps, and without it",
        effects=(paired_difference("accuracy after it", before.correct.numpy(), after.correct.numpy()),),
        readings=(
            Reading(name="horizon after it (steps)", before=before.horizon, after=after.horizon),
            Reading(name="last loss (nats)", before=before.loss, after=after.loss),
        ),
        status=verdict.status,
        measured=verdict.measured,
        value=verdict.value,
    )


def _clip(context: FixContext) -> Change:
    clip = GradientClip(name="norm", limit=LIMIT)
    before, after = _train(context, lambda model: None, Nothing()), _train(context, lambda model: None, clip)
    clipped = min(after.largest, LIMIT)
    return Change(
        f"{_describe(context)} with gradients clipped to norm {LIMIT:g}, and without",
        effects=(paired_difference("accuracy after it", before.correct.numpy(), after.correct.numpy()),),
        readings=(
            Reading(name="largest gradient that reaches the optimizer", before=before.largest, after=clipped),
            Reading(name="last loss (nats)", before=before.loss, after=after.loss),
        ),
        measured=f"it grows as before; at most {clipped:.3g} of it reaches the optimizer, {before.largest:.3g} before",
    )


def _describe(context: FixContext) -> str:
    images = "?" if context.train is None else context.train.name
    return f"copies with new initial weights, trained for {STEPS} steps on images of {images}"


def _train(context: FixContext, prepare: Callable[[nn.Module], None], clip: ClipOptions) -> _ShortTraining:
    images = context.training_images(IMAGES)
    batch = min(BATCH, len(images))
    recipe = Recipe.parse(
        {
            "name": "short",
            "epochs": STEPS * batch / len(images),
            "batch_size": batch,
            "optimizer": {"name": "adamw", "lr": 3e-3},
            "clip": clip.model_dump(),
            "augment": {"name": "none"},
        },
        where="fix",
    )
    model = copied(context.model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(context.check.seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        prepare(model)
    steps: list[StepMetrics] = []
    fit(model, images, recipe=recipe, seed=context.check.seed, on_step=steps.append)
    return _ShortTraining(
        correct=predict(model, context.check.clean).correct,
        trace=measure_gradients_over_time(model, context.check.probed),
        loss=steps[-1].loss,
        largest=max(step.gradient_norm for step in steps),
    )


FORGET_BIAS = Fix("forget bias", "training", _raise_forget_bias)
CLIPPING = Fix("clipping", "training", _clip)
