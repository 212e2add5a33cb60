"""An attack by its options, and the plan it makes of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from assay.attacks.batch import Method
from assay.attacks.losses import LOSSES
from assay.attacks.threat import Threat
from assay.options import Options


@dataclass(frozen=True)
class AttackPlan:
    """Methods in the order they run, each on the samples that withstood the ones before; notes to be said aloud.

    With a ``tolerance`` the methods from ``optional_from`` on run only until :class:`EarlyStoppingByYield` finds that
    one more of them would hardly change the result. With ``early_stopping`` a search leaves the samples for which
    :class:`EarlyStoppingByProgress` predicts no success.
    """

    methods: tuple[Method[Any], ...]
    notes: tuple[str, ...] = ()
    tolerance: float | None = None
    optional_from: int = 0
    early_stopping: bool = False


class AttackOptions(Options):
    """An attack and its options. ``constrained`` is False for one that keeps to no ball."""

    name: ClassVar[str]
    constrained: ClassVar[bool] = True

    @abstractmethod
    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """The methods for this threat and number of classes."""

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts), as the record states them."""
        return (int(getattr(self, "steps", 1)), None, int(getattr(self, "restarts", 1)))


def _known_loss(name: str) -> str:
    if name not in LOSSES:
        raise ValueError(f"one of {', '.join(LOSSES)}")
    return name


LossName = Annotated[str, AfterValidator(_known_loss)]


def notes(*said: str | None) -> tuple[str, ...]:
    """The notes that are not None, each once."""
    return tuple(dict.fromkeys(note for note in said if note))
