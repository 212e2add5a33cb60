"""What the stages of a check cost on this model: the model is timed, then each stage on a few images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.attacks.engine import attack
from assay.attacks.measure import attack_inputs
from assay.attacks.methods.gradient import PGD
from assay.check.effort import Effort
from assay.check.stages import CURVE_STEPS, EPSILON, CheckContext, CheckStage
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import fair_sample
from assay.errors import AssayError, InterruptedRunError
from assay.models.calls import ModelCall, calling
from assay.records.budget import Budget
from assay.runtime import device_of, pixel_dtype
from assay.runtime.allocation import TRIALS, Cost

_SECONDS = 0.1  # of a timed call of the model, from which on a batch is large enough
_MOST_ROWS = 64
DROPPED = 0.5  # of what a first trial shows of an attack: images drop out when they break, which two hardly show
_LEAST_ATTACKED, _MOST_ATTACKED = 4, 16  # images of a short attack beforehand
_BACKWARD = 3.0  # forward passes in time, of a pass forward and backward that cannot be timed


@dataclass(frozen=True)
class PassTimes:
    """Seconds an image of one pass through the model, forward, and forward and backward."""

    forward: float
    gradient: float

    def of(self, passes: tuple[float, float]) -> float:
        """Seconds of so many passes of both kinds."""
        return passes[0] * self.forward + passes[1] * self.gradient


def time_passes(model: nn.Module, dataset: ImageDataset, *, n: int | None = None) -> PassTimes:
    """Time both passes on a batch of ``n`` images, by default of as many as take a tenth of a second.

    Raises :class:`ModelError` for a model that cannot be run on these images.
    """
    rows = torch.arange(n or _MOST_ROWS) % len(dataset)
    images = to_unit_range(dataset.images[rows].to(device_of(model)), pixel_dtype(model))
    with calling(model, images, classes=dataset.classes) as network:
        most = network.rows_that_fit(dataset.shape, most=len(images), gradients=True)
        with torch.no_grad():
            forward = _time_call(network, images, most=most)
        gradient = _BACKWARD * forward
        with suppress(Exception):  # a model without gradients: the stages that need them say so
            gradient = _time_call(lambda batch: _differentiate(network, batch), images, most=most)
    return PassTimes(forward, gradient)


def _differentiate(network: ModelCall, images: Tensor) -> None:
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        torch.autograd.grad(network(leaf).sum(), leaf)


def _time_call(call: Callable[[Tensor], object], images: Tensor, *, most: int) -> float:
    """Seconds an image, in a batch of ``most`` or of as many as take :data:`_SECONDS`: few cost more each."""
    call(images[:1])
    n, seconds = 1, _time_once(call, images[:1])
    while n < most and seconds < _SECONDS:
        n = min(most, 4 * n)
        call(images[:n])  # the first batch of a size may take longer
        seconds = _time_once(call, images[:n])
    return seconds / n


def _time_once(call: Callable[[Tensor], object], images: Tensor) -> float:
    started = time.perf_counter()
    call(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - started


def longest_costs(stages: Iterable[CheckStage], budget: Budget, passes: PassTimes) -> dict[str, Cost]:
    """The cost of each stage that has an effort, by its name, with all passes that an image needs at most."""
    return {
        stage.name: Cost(each=max(passes.of(stage.effort.passes(budget)), 1e-9))
        for stage in stages
        if stage.effort is not None
    }


def measure_needed_passes(context: CheckContext, passes: PassTimes, *, seconds: float) -> float:
    """The share of its passes that a short attack needs on a few images, as many as fit: those that break drop out.

    :data:`DROPPED` where it fails: the stage itself will tell why.
    """
    options = PGD(steps=CURVE_STEPS)
    each = passes.of((2, options.steps))
    data = fair_sample(context.attacked, min(_MOST_ATTACKED, max(_LEAST_ATTACKED, int(seconds / max(each, 1e-9)))))
    with suppress(AssayError):
        inputs = attack_inputs(context.model, data)
        result = attack(context.model, **inputs, attack=options, epsilon=EPSILON, seed=context.seed)
        counts, right = result.counts, int(result.clean_correct.sum())
        used = passes.of((counts.forwards - counts.backwards - len(data), counts.backwards))
        return min(max(used / (each * right), 0.0), 1.0) if right else 0.0
    return DROPPED


def measure_costs(
    context: CheckContext, stages: Sequence[CheckStage], passes: PassTimes, *, seconds: float
) -> dict[str, Cost]:
    """The cost of each stage that has an effort, by its name: timed on a few images as far as ``seconds`` allow.

    Cheap stages are timed first, so that what they leave is there for the others; one that cannot be timed has the
    cost of all passes that it needs at most.
    """
    longest = longest_costs(stages, context.budget, passes)
    waiting = sorted((stage for stage in stages if stage.name in longest), key=lambda stage: longest[stage.name].each)
    timer, costs, left = _StageTimer(context), {}, seconds
    for place, stage in enumerate(waiting):
        share = left / (len(waiting) - place)
        costs[stage.name], spent = timer.time(stage, longest[stage.name], seconds=share)
        left -= spent
    return costs


class _StageTimer:
    """Times stages on a few images, and the passes of batches as small."""

    def __init__(self, context: CheckContext) -> None:
        self._context = context
        self._passes: dict[int, PassTimes] = {}

    def time(self, stage: CheckStage, longest: Cost, *, seconds: float) -> tuple[Cost, float]:
        """The cost of a stage from trials, each begun only while it is expected to end in time; the seconds spent.

        What the first trial takes longer than expected is not counted: it loads and compiles what the check needs.
        """
        assert stage.effort is not None
        cost, spent = longest, 0.0
        trials: list[tuple[int, float]] = []
        for images in TRIALS:
            n = min(images, self._context.most(stage.effort.samples))
            expected = min(cost.seconds(n), longest.seconds(n))
            if spent + expected > seconds or (trials and n == trials[-1][0]):
                break
            own, started = self._context.with_samples(stage.effort.samples, n), time.perf_counter()
            try:
                for _ in stage.measure(own):
                    pass
            except InterruptedRunError:
                raise
            except Exception:  # the stage itself will tell what fails
                return longest, spent
            took = time.perf_counter() - started
            spent += took if trials else min(took, expected)
            trials.append((n, took))
            cost = self._estimate(stage.effort, trials, longest)
        return cost, spent

    def _estimate(self, effort: Effort, trials: Sequence[tuple[int, float]], longest: Cost) -> Cost:
        """The line through the last two trials, where a first one has warmed up before these.

        Else as much of the longest cost as the last took of its own: small batches cost more an image.
        """
        n, seconds = trials[-1]
        if len(trials) > 2 and seconds > trials[-2][1]:
            each = (seconds - trials[-2][1]) / (n - trials[-2][0])
            return Cost(fixed=max(0.0, seconds - each * n), each=each)
        if n not in self._passes:
            self._passes[n] = time_passes(self._context.model, self._context.dataset, n=n)
        alone = n * self._passes[n].of(effort.passes(self._context.budget))
        if len(trials) > 1:
            return longest.times(seconds / alone)
        return longest.times(min(seconds / alone, 1.0) * (DROPPED if effort.searches else 1.0))
