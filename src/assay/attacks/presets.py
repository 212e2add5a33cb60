"""The gradient-step attacks by name: each is a small options object that makes a plan."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from assay.attacks.gradient_steps import GradientSteps, Noise
from assay.attacks.losses import find_loss, fit_to_classes
from assay.attacks.plan import Attack, LossName, Plan, notes
from assay.attacks.threat import Threat
from assay.attacks.transforms import Search, WorstTransform

__all__ = ["Attack", "Fgsm", "Pgd", "RandomNoise", "SignedSteps", "Transforms"]


class Fgsm(Attack):
    """One step of size ε along the sign of the gradient, from the image itself (Goodfellow et al. 2015)."""

    name: ClassVar[str] = "fgsm"
    loss: LossName = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a restart."""
        loss, note = fit_to_classes(find_loss(self.loss), classes)
        method = GradientSteps(name=self.name, steps=1, loss=loss, seed=seed)
        return Plan((method,), notes(note))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        return (1, threat.epsilon, 1)


class Pgd(Attack):
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

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a restart."""
        loss, note = fit_to_classes(find_loss(self.loss), classes)
        methods = tuple(
            GradientSteps(
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
        return Plan(methods, notes(note))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        step_size = self.step_size or min(threat.epsilon, 2.5 * threat.epsilon / self.steps)
        return (self.steps, step_size, self.restarts)


class SignedSteps(Attack):
    """x ← x + ε·sign ∇ₓℓ, ``steps`` times, no projection: the textbook exercise. ε is the size of a step.

    Every sample takes every step, so that the mean loss after each is over all of them. The last image is clipped to
    the box before it is judged.
    """

    name: ClassVar[str] = "signed-steps"
    constrained: ClassVar[bool] = False
    steps: int = Field(default=5, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a restart."""
        method = GradientSteps(name=self.name, steps=self.steps, keeps="last", seed=seed)
        return Plan((method,))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        return (self.steps, threat.epsilon, 1)


class RandomNoise(Attack):
    """Random points of the ball, half inside and half on its border: the floor that every attack must beat."""

    name: ClassVar[str] = "noise"
    draws: int = Field(default=20, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a restart."""
        return Plan((Noise(steps=self.draws - 1, seed=seed),))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts)."""
        return (self.draws, None, 1)


class Transforms(Attack):
    """The worst of the twelve image operations at strengths that a person sees through; ε does not apply.

    ``grid`` tries every operation at every strength, ``random`` as many as ``draws`` says, ``greedy`` composes
    ``depth`` operations, each the worst after those before it.
    """

    name: ClassVar[str] = "transforms"
    constrained: ClassVar[bool] = False
    search: Search = "grid"
    draws: int = Field(default=40, ge=1)
    depth: int = Field(default=2, ge=1, le=4)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method."""
        depth = self.depth if self.search == "greedy" else 1
        return Plan((WorstTransform(search=self.search, draws=self.draws, depth=depth, seed=seed),))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(pictures tried, no step size, one run)."""
        depth = self.depth if self.search == "greedy" else 1
        return (WorstTransform(search=self.search, draws=self.draws, depth=depth).steps + 1, None, 1)
