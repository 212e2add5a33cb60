"""Recipes side by side: trained from the same seeds, on the same samples in the same order, for as many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from torch import nn

from assay.claims.claim import Settings
from assay.claims.rule import interval
from assay.data.dataset import ImageDataset
from assay.errors import DivergedError
from assay.evaluate import predict
from assay.records.claims import Point
from assay.training.classifier import build_for
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.recipes import Recipe
from assay.training.sections import DecaySchedule, Nothing, SGDOptions

BATCH = 64
LAST = 10  # steps that the final training loss is the mean of

Prepare = Callable[[nn.Module], None]
K = TypeVar("K")  # what tells the recipes apart


@dataclass(frozen=True, eq=False)
class Outcome:
    """One trained ``model``: its ``steps``, and on the test set its ``accuracy`` in per cent and its loss in nats."""

    model: nn.Module
    steps: tuple[StepMetrics, ...]
    accuracy: float
    test_loss: float
    diverged: bool

    @property
    def training_loss(self) -> float:
        """Mean cross-entropy of the last ten batches, in nats; those of a run that diverged: the last before."""
        last = [step.loss for step in self.steps[-LAST:]]
        return fmean(last) if last else math.inf


def short_recipe(
    data: ImageDataset,
    *,
    name: str,
    model: str,
    steps: int,
    options: Mapping[str, object] | None = None,
    learning_rate: float = 0.05,
) -> Recipe:
    """SGD with momentum for ``steps`` batches of 64, without augmentation; the rate rises for a fifth of them.

    Without that rise the first steps of a deep residual network undo its initialisation (He et al. 2015, section 4.2,
    on 110 layers), and so short a run does not recover.
    """
    return Recipe(
        name=name,
        data=data.name,
        model=model,
        model_options=dict(options or {}),
        epochs=steps / max(1, len(data) // BATCH),
        batch_size=BATCH,
        refresh_batchnorm=1000,
        optimizer=SGDOptions(lr=learning_rate),
        schedule=DecaySchedule(warmup=0.2),
        augment=Nothing(),
    )


def train_one(
    recipe: Recipe, train: ImageDataset, test: ImageDataset, *, seed: int, prepare: Prepare | None = None
) -> Outcome:
    """Build, ``prepare``, fit and examine one network; a run that diverges is an outcome as well."""
    model = build_for(recipe, train, seed=seed)
    if prepare is not None:
        prepare(model)
    steps: list[StepMetrics] = []
    diverged = False
    try:
        fit(model, train, recipe=recipe, seed=seed, on_step=steps.append)
    except DivergedError:
        diverged = True
    found = predict(model, test)
    accuracy = 100 * float(found.correct.double().mean())
    return Outcome(model.eval(), tuple(steps), accuracy, float(found.losses.double().mean()), diverged)


def train_side_by_side(
    recipes: Mapping[K, Recipe],
    train: ImageDataset,
    test: ImageDataset,
    *,
    seeds: Sequence[int],
    prepare: Prepare | None = None,
) -> dict[K, tuple[Outcome, ...]]:
    """Every recipe from every seed; outcomes at one place of two tuples have their seed in common."""
    return {
        name: tuple(train_one(recipe, train, test, seed=seed, prepare=prepare) for seed in seeds)
        for name, recipe in recipes.items()
    }


def paired(of: Sequence[Outcome], against: Sequence[Outcome], value: Callable[[Outcome], float]) -> tuple[float, ...]:
    """``value`` of each outcome less that of the other with the same seed."""
    return tuple(value(one) - value(other) for one, other in zip(of, against, strict=True))


def accuracy(outcome: Outcome) -> float:
    """Test accuracy, %."""
    return outcome.accuracy


def training_loss(outcome: Outcome) -> float:
    """Final training loss, nats."""
    return outcome.training_loss


def mean_point(
    outcomes: Sequence[Outcome], value: Callable[[Outcome], float], *, x: float | str, series: str = ""
) -> Point:
    """The mean of ``value`` over the seeds, with its 95 % interval."""
    mean, low, high = interval([value(one) for one in outcomes])
    return Point(series=series, x=x, y=mean, low=low, high=high)


def mean_curve(
    outcomes: Sequence[Outcome], value: Callable[[StepMetrics], float], *, series: str, most: int = 60
) -> list[Point]:
    """The mean of ``value`` over the seeds at up to ``most`` of the steps that all of them reached."""
    length = min(len(one.steps) for one in outcomes)
    shown = sorted({round(i * (length - 1) / max(1, most - 1)) for i in range(most)}) if length else []
    points = []
    for i in shown:
        mean, low, high = interval([value(one.steps[i]) for one in outcomes])
        points.append(Point(series=series, x=i + 1, y=mean, low=low, high=high))
    return points


def picture_side(settings: Settings) -> int | None:
    """Pixels a side for networks that are trained many times: 8 for the digits, which were drawn on 8×8."""
    if settings.data == "digits":
        return 8
    return settings.pick(tiny=8, quick=16, full=None)
