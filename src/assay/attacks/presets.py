"""Attacks by name: each is a small options object that knows its plan, the methods to run one after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field, field_validator

from assay.attacks.gradient_steps import GradientSteps, Noise
from assay.attacks.lanes import Method
from assay.attacks.losses import LOSSES, find_loss, fit_to_classes
from assay.attacks.threat import Threat
from assay.errors import OptionError
from assay.options import Options


@dataclass(frozen=True)
class Plan:
    """Methods in the order they run, each on the samples that withstood the ones before; notes to be said aloud."""

    methods: tuple[Method[Any], ...]
    notes: tuple[str, ...] = ()


class Attack(Options):
    """An attack and its options. ``constrained`` is False for one that keeps to no ball."""

    name: ClassVar[str]
    constrained: ClassVar[bool] = True

    @abstractmethod
    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """The methods for this threat and number of classes."""

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts), as the record states them."""
        return (int(getattr(self, "steps", 1)), None, int(getattr(self, "restarts", 1)))


class Fgsm(Attack):
    """One step of size ε along the sign of the gradient, from the image itself (Goodfellow et al. 2015)."""

    name: ClassVar[str] = "fgsm"
    loss: str = "ce"

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        return _check_loss(loss)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a restart."""
        loss, note = fit_to_classes(find_loss(self.loss), classes)
        method = GradientSteps(name=self.name, steps=1, loss=loss, seed=seed)
        return Plan((method,), _notes(note))

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
    loss: str = "ce"

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        return _check_loss(loss)

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
        return Plan(methods, _notes(note))

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


PRESETS: Mapping[str, type[Attack]] = MappingProxyType(
    {preset.name: preset for preset in (Fgsm, Pgd, SignedSteps, RandomNoise)}
)


def find_attack(name: str, options: Mapping[str, Any] | None = None) -> Attack:
    """The preset of that name with ``options`` set; :class:`OptionError` names what there is, or the wrong option."""
    if name not in PRESETS:
        raise OptionError("attack", expected=f"one of {', '.join(PRESETS)}", got=repr(name))
    return PRESETS[name].parse(dict(options or {}), where=name)


def _check_loss(loss: str) -> str:
    if loss not in LOSSES:
        raise ValueError(f"one of {', '.join(LOSSES)}")
    return loss


def _notes(*notes: str | None) -> tuple[str, ...]:
    return tuple(note for note in notes if note)
