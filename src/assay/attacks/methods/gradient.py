"""FGSM, PGD and its relatives: repeated steps along the steepest direction of a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from assay.attacks import draws
from assay.attacks.batch import ActiveBatch, Keeps, ModelOutput, Samples, initial_fields
from assay.attacks.losses import AttackLoss, cross_entropy, find_loss, fit_to_classes
from assay.attacks.methods.transforms import Search, TransformsMethod
from assay.attacks.options import AttackOptions, AttackPlan, LossName, notes
from assay.attacks.threat import Threat, column


@dataclass(eq=False)
class StepBatch(ActiveBatch):
    """Lanes with the running ``velocity`` (B, C, H, W) and a fingerprint of each image ``visited``, (B, steps + 1)."""

    velocity: Tensor
    visited: Tensor


@dataclass(frozen=True)
class GradientMethod:
    """x ← Π(x + α·argmax_{‖d‖=1} ⟨v, d⟩), v ← μ·v + g/‖g‖₁, ``steps`` times; Π projects into ball and box.

    α is ``step_size``, a length in the threat's norm, or ``relative_step`` of each sample's ε. ``momentum`` μ = 0 is
    plain PGD (Madry et al. 2018), one step of size ε from the image itself FGSM (Goodfellow et al. 2015), μ = 1
    MI-FGSM (Dong et al. 2018). ``stream`` sets restarts apart. With ``keeps="last"`` and an unconstrained threat
    nothing is projected: the textbook's signed steps.

    Plain steps of one size are a function of the image alone, so a row that comes back to an image it has visited will
    go round for ever: it is done.
    """

    name: str
    steps: int
    step_size: float | None = None
    relative_step: float = 1.0
    loss: AttackLoss = cross_entropy
    random_start: bool = False
    momentum: float = 0.0
    keeps: Keeps = "first"
    stays_inside: bool = True
    seed: int = 0
    stream: int = 0

    def begin(self, samples: Samples, threat: Threat) -> StepBatch:
        """Each sample's first image."""
        iterate = samples.images
        if self.random_start:
            delta = threat.geometry.sample(samples.ids, self.seed, self.stream, like=samples.images)
            iterate = threat.project(samples.images + column(samples.epsilon) * delta, samples.images, samples.epsilon)
        shape = samples.images.shape if self.momentum else (len(samples), 0, 1, 1)
        visited = samples.index.new_zeros((len(samples), self.steps + 1 if self._may_cycle else 0))
        if self._may_cycle:
            visited[:, 0] = fingerprints(iterate)
        fields = initial_fields(samples, iterate=iterate)
        return StepBatch(**fields, velocity=samples.images.new_zeros(shape), visited=visited)

    def advance(self, batch: StepBatch, output: ModelOutput, threat: Threat) -> StepBatch:
        """The next image."""
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
    """int64 (B,): a hash of every bit of each image; 0 is left to images not yet visited."""
    words = images.float().flatten(1).contiguous().view(torch.int32).long()
    weights = draws.bits(torch.zeros(1, dtype=torch.int64, device=images.device), 0xF1, size=words.shape[1]) | 1
    marks = (words * weights).sum(dim=1)
    return torch.where(marks == 0, 1, marks)


@dataclass(frozen=True)
class NoiseMethod:
    """Random points instead of gradients: uniform in the ball for the first half of the draws, then on its border.

    The floor that every attack must beat: a model that noise breaks needs no adversary.
    """

    name: str = "noise"
    steps: int = 10
    loss: AttackLoss = cross_entropy
    keeps: Keeps = "first"
    stays_inside: bool = True
    seed: int = 0

    def begin(self, samples: Samples, threat: Threat) -> ActiveBatch:
        """Each sample's first image."""
        return self._draw(ActiveBatch(**initial_fields(samples, iterate=samples.images, gradient=False)), threat)

    def advance(self, batch: ActiveBatch, output: ModelOutput, threat: Threat) -> ActiveBatch:
        """The next image."""
        batch.step = batch.step + 1
        return self._draw(batch, threat)

    def _draw(self, batch: ActiveBatch, threat: Threat) -> ActiveBatch:
        # The step counter is part of each row's key, so rows that joined at different times draw alike.
        delta = threat.geometry.sample(batch.ids * (self.steps + 1) + batch.step, self.seed, 0x4E4F, like=batch.images)
        on_border = column(batch.step * 2 > self.steps)
        delta = torch.where(on_border, threat.geometry.steepest(delta), delta)
        batch.iterate = threat.project(batch.images + column(batch.epsilon) * delta, batch.images, batch.epsilon)
        return batch


class FGSM(AttackOptions):
    """One step of size ε along the sign of the gradient, from the image itself (Goodfellow et al. 2015)."""

    name: ClassVar[str] = "fgsm"
    loss: LossName = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a restart."""
        loss, note = fit_to_classes(find_loss(self.loss), classes)
        method = GradientMethod(name=self.name, steps=1, loss=loss, seed=seed)
        return AttackPlan((method,), notes(note))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        return (1, threat.epsilon, 1)


class PGD(AttackOptions):
    """Projected gradient steps from a random point of the ball (Madry et al. 2018).

    ``step_size`` None means 2.5·ε/steps, at most ε. ``momentum`` 1 is MI-FGSM (Dong et al. 2018).
    """

    name: ClassVar[str] = "pgd"
    steps: int = Field(default=10, ge=1)
    step_size: float | None = Field(default=None, gt=0)
    restarts: int = Field(default=1, ge=1)
    random_start: bool = True
    momentum: float = Field(default=0.0, ge=0)
    loss: LossName = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a restart."""
        loss, note = fit_to_classes(find_loss(self.loss), classes)
        methods = tuple(
            GradientMethod(
                name=self.name,
                steps=self.steps,
                step_size=self.step_size,
                relative_step=min(1.0, 2.5 / self.steps),
                loss=loss,
                random_start=self.random_start,
                momentum=self.momentum,
                seed=seed,
                stream=restart,
            )
            for restart in range(self.restarts)
        )
        return AttackPlan(methods, notes(note))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        step_size = self.step_size or min(threat.epsilon, 2.5 * threat.epsilon / self.steps)
        return (self.steps, step_size, self.restarts)


class SignedSteps(AttackOptions):
    """x ← x + ε·sign ∇ₓℓ, ``steps`` times, no projection: the textbook exercise. ε is the size of a step.

    Every sample takes every step, so that the mean loss after each is over all of them. The last image is clipped to
    the box before it is judged.
    """

    name: ClassVar[str] = "signed-steps"
    constrained: ClassVar[bool] = False
    steps: int = Field(default=5, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a restart."""
        method = GradientMethod(name=self.name, steps=self.steps, keeps="last", seed=seed)
        return AttackPlan((method,))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        return (self.steps, threat.epsilon, 1)


class Noise(AttackOptions):
    """Random points of the ball, half inside and half on its border: the floor that every attack must beat."""

    name: ClassVar[str] = "noise"
    draws: int = Field(default=20, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a restart."""
        return AttackPlan((NoiseMethod(steps=self.draws - 1, seed=seed),))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        return (self.draws, None, 1)


class Transforms(AttackOptions):
    """The worst of the twelve image operations at strengths that a person sees through; ε does not apply.

    ``grid`` tries every operation at every strength, ``random`` as many as ``draws`` says, ``greedy`` composes
    ``depth`` operations, each the worst after those before it.
    """

    name: ClassVar[str] = "transforms"
    constrained: ClassVar[bool] = False
    search: Search = "grid"
    draws: int = Field(default=40, ge=1)
    depth: int = Field(default=2, ge=1, le=4)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method."""
        depth = self.depth if self.search == "greedy" else 1
        return AttackPlan((TransformsMethod(search=self.search, draws=self.draws, depth=depth, seed=seed),))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(pictures tried, no step size, one run)."""
        depth = self.depth if self.search == "greedy" else 1
        return (TransformsMethod(search=self.search, draws=self.draws, depth=depth).steps + 1, None, 1)
