"""FGSM, PGD and signed steps: repeated steps along the steepest direction of a loss; and random noise beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from assay.attacks import draws
from assay.attacks.batch import ActiveBatch, Method, ModelOutput, Samples, initial_fields
from assay.attacks.losses import find_loss, fit_to_classes
from assay.attacks.options import AttackOptions, AttackPlan, Loss, Restarts, Steps, register
from assay.attacks.threat import Threat, column

LONGEST_STEP = 1e6  # in pixel ranges


@register
class FGSM(AttackOptions):
    """Fast gradient sign method (FGSM): one step of size ε along the sign of the gradient.

    Under L2 and L1 the step goes along the steepest direction of that norm.

    Attributes:
        loss: what to maximise: ce, margin, dlr or probability-margin.

    Example:
        >>> import assay
        >>> assay.FGSM().describe(assay.Threat(epsilon=0.1))  # steps, step size, restarts
        (1, 0.1, 1)

    Reference:
        Goodfellow et al. 2015, arXiv:1412.6572.
    """

    name: ClassVar[str] = "fgsm"
    loss: Loss = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        loss, notes = fit_to_classes(find_loss(self.loss), classes)
        return AttackPlan((GradientMethod(name=self.name, steps=1, loss=loss, seed=seed),), notes)

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        return (1, threat.epsilon, 1)


@register
class PGD(AttackOptions):
    """Projected gradient descent (PGD): gradient steps from a random point of the ball.

    Attributes:
        steps: gradient steps of one run, at least 1.
        step_size: in the norm of the threat; None is 2.5·ε/steps, at most ε.
        restarts: runs from different random starts, at least 1.
        random_start: whether to start from a random point of the ball, or from the image itself.
        momentum: decay factor of the accumulated gradient; 0 is plain PGD, 1 MI-FGSM.
        loss: what to maximise: ce, margin, dlr or probability-margin.

    Example:
        >>> import assay
        >>> assay.PGD(steps=20, restarts=2).describe(assay.Threat(epsilon=0.1))  # steps, step size, restarts
        (20, 0.0125, 2)

    Reference:
        Madry et al. 2018, arXiv:1706.06083, eq. 2; with momentum Dong et al. 2018, arXiv:1710.06081.
    """

    name: ClassVar[str] = "pgd"
    steps: Steps = 10
    step_size: Annotated[float | None, Field(gt=0, description="length of a step; none is 2.5·ε/steps")] = None
    restarts: Restarts = 1
    random_start: Annotated[bool, Field(description="start from a random point of the ball")] = True
    momentum: Annotated[float, Field(ge=0, le=1, description="decay factor of the accumulated gradient")] = 0.0
    loss: Loss = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        loss, notes = fit_to_classes(find_loss(self.loss), classes)
        same = self.model_dump(include={"steps", "step_size", "random_start", "momentum"})
        if self.step_size is not None:  # a longer one leads to the same point of the ball, but its square overflows
            same["step_size"] = min(self.step_size, LONGEST_STEP * threat.diameter(1))
        same |= {"relative_step": min(1.0, 2.5 / self.steps), "loss": loss, "seed": seed}
        methods = (GradientMethod(name=self.name, stream=restart, **same) for restart in range(self.restarts))
        return AttackPlan(tuple(methods), notes)

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        step_size = self.step_size or min(threat.epsilon, 2.5 * threat.epsilon / self.steps)
        return (self.steps, step_size, self.restarts)

    def without_effect(self) -> Mapping[str, str]:
        unused = {} if self.random_start else {"restarts": "random_start=true"}
        return unused if self.steps > 1 else unused | {"momentum": "steps=2 or more"}


@register
class SignedSteps(AttackOptions):
    """Iterated gradient sign without projection: x ← x + ε·sign ∇ₓℓ, where ε is the size of a step.

    Every sample takes every step, so that the mean loss after each is over all samples. The last image is clipped to
    the pixel bounds before it is verified.

    Attributes:
        steps: at least 1.

    Example:
        >>> import assay
        >>> assay.SignedSteps().describe(assay.Threat(epsilon=2 / 255))[0]
        5

    Reference:
        Goodfellow et al. 2015, arXiv:1412.6572, repeated.
    """

    name: ClassVar[str] = "signed-steps"
    constrained: ClassVar[bool] = False
    steps: Steps = 5

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        return AttackPlan((GradientMethod(name=self.name, steps=self.steps, keeps="last", seed=seed),))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        return (self.steps, threat.epsilon, 1)


@register
class Noise(AttackOptions):
    """Random points of the ball, half inside and half on its border: the baseline that every attack must beat."""

    name: ClassVar[str] = "noise"
    draws: Annotated[int, Field(ge=1, description="random points for each sample")] = 20

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        return AttackPlan((NoiseMethod(name=self.name, steps=self.draws - 1, seed=seed),))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        return (self.draws, None, 1)


@dataclass(eq=False)
class StepBatch(ActiveBatch):
    """``velocity`` (B, C, H, W) is the accumulated gradient, ``visited`` (B, steps + 1) a hash of each iterate."""

    velocity: Tensor
    visited: Tensor


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method[StepBatch]):
    """x ← Π(x + α·argmax_{‖d‖=1} ⟨v, d⟩), v ← μ·v + g/‖g‖₁, ``steps`` times; Π projects into ball and bounds.

    α is ``step_size``, a length in the threat's norm, or ``relative_step`` of each sample's ε. ``momentum`` μ = 0 is
    plain PGD (Madry et al. 2018), one step of size ε from the image itself FGSM (Goodfellow et al. 2015), μ = 1
    MI-FGSM (Dong et al. 2018). With ``keeps="last"`` and an unconstrained threat nothing is projected: signed steps.

    Plain steps of one size are a function of the image alone, so a row that returns to an image it has visited would
    repeat the cycle for ever: it is done.
    """

    step_size: float | None = None
    relative_step: float = 1.0
    random_start: bool = False
    momentum: float = 0.0

    def begin(self, samples: Samples, threat: Threat) -> StepBatch:
        iterate = samples.images
        if self.random_start:
            delta = threat.geometry.sample(samples.ids, self.seed, self.stream, like=samples.images)
            iterate = threat.project(samples.images + column(samples.epsilon) * delta, samples.images, samples.epsilon)
        shape = samples.images.shape if self.momentum else (len(samples), 0, 1, 1)
        visited = samples.index.new_zeros((len(samples), self.steps + 1 if self._may_cycle else 0))
        if self._may_cycle:
            visited[:, 0] = fingerprints(iterate)
        velocity = samples.images.new_zeros(shape)
        return StepBatch(**initial_fields(samples, iterate=iterate), velocity=velocity, visited=visited)

    def advance(self, batch: StepBatch, output: ModelOutput, threat: Threat) -> StepBatch:
        batch.step = batch.step + 1
        direction = output.gradient
        if self.momentum:
            size = direction.flatten(1).abs().sum(dim=1).clamp_min(torch.finfo(direction.dtype).tiny)
            batch.velocity = self.momentum * batch.velocity + direction / column(size)
            direction = batch.velocity
        step = column(self.relative_step * batch.epsilon) if self.step_size is None else self.step_size
        moved = batch.iterate + step * threat.geometry.steepest(direction)
        batch.iterate = threat.project(moved, batch.images, batch.epsilon) if threat.constrained else moved
        if self._may_cycle:
            mark = fingerprints(batch.iterate)
            batch.done = (batch.visited == mark[:, None]).any(dim=1)
            batch.visited = batch.visited.scatter(1, batch.step[:, None], mark[:, None])
        return batch

    @property
    def _may_cycle(self) -> bool:
        return self.keeps == "first" and self.momentum == 0 and self.steps > 2


def fingerprints(images: Tensor) -> Tensor:
    """int64 (B,): a hash of every bit of each image; 0 marks an empty place."""
    words = images.float().flatten(1).contiguous().view(torch.int32).long()
    weights = draws.bits(torch.zeros(1, dtype=torch.int64, device=images.device), 0xF1, size=words.shape[1]) | 1
    marks = (words * weights).sum(dim=1)
    return torch.where(marks == 0, 1, marks)


@dataclass(frozen=True, kw_only=True)
class NoiseMethod(Method[ActiveBatch]):
    """Random points instead of gradients: uniform in the ball for the first half of the draws, then on its border."""

    takes_gradients: bool = False

    def begin(self, samples: Samples, threat: Threat) -> ActiveBatch:
        return self._draw(ActiveBatch(**initial_fields(samples, iterate=samples.images, gradient=False)), threat)

    def advance(self, batch: ActiveBatch, output: ModelOutput, threat: Threat) -> ActiveBatch:
        batch.step = batch.step + 1
        return self._draw(batch, threat)

    def _draw(self, batch: ActiveBatch, threat: Threat) -> ActiveBatch:
        # The step counter is part of each row's key, so rows that joined at different times draw alike.
        delta = threat.geometry.sample(batch.ids * (self.steps + 1) + batch.step, self.seed, 0x4E4F, like=batch.images)
        on_border = column(batch.step * 2 > self.steps)
        delta = torch.where(on_border, threat.geometry.steepest(delta), delta)
        batch.iterate = threat.project(batch.images + column(batch.epsilon) * delta, batch.images, batch.epsilon)
        return batch
