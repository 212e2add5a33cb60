"""An attack as its options: a small validated object, registered under its name, that makes a plan of methods."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field

from assay.attacks.batch import Method
from assay.attacks.losses import fit_to_classes
from assay.attacks.threat import Threat
from assay.errors import UnusedOptionError
from assay.options import Options

LossName = Literal[
    "ce", "margin", "dlr", "probability-margin", "targeted-ce", "targeted-margin", "target-lead", "targeted-dlr"
]
Steps = Annotated[int, Field(ge=1, description="gradient steps of one run")]
Restarts = Annotated[int, Field(ge=1, description="runs from different random starts")]
Queries = Annotated[int, Field(ge=1, description="forward passes a sample may cost")]
TargetClasses = Annotated[int, Field(ge=1, description="most likely wrong classes, each targeted in turn")]
Loss = Annotated[LossName, Field(description="loss to maximise")]


@dataclass(frozen=True)
class AttackPlan:
    """Methods in the order they run, each on the samples that are still correct; notes for whoever reads the result.

    With a ``tolerance`` the methods from ``optional_from`` on run only until :class:`EarlyStoppingByYield` finds that
    one more of them would hardly change the result. With ``early_stopping`` a search leaves the samples for which
    :class:`EarlyStoppingByProgress` predicts no success.
    """

    methods: tuple[Method[Any], ...]
    notes: tuple[str, ...] = ()
    tolerance: float | None = None
    optional_from: int = 0
    early_stopping: bool = False

    def targeted(self, classes: int | None = None) -> Self:
        """The plan with every method turned to each sample's target class, one of so many ``classes``, if known."""
        methods = [method.targeted() for method in self.methods]
        turned = [method for method in methods if method is not None]
        fitted = [(method, *fit_to_classes(method.loss, classes or sys.maxsize)) for method in turned]
        return replace(
            self,
            methods=tuple(replace(method, loss=loss) for method, loss, _ in fitted),
            notes=unique_notes(*self.notes, *(note for _, _, notes in fitted for note in notes)),
            optional_from=sum(method is not None for method in methods[: self.optional_from]),
        )


class AttackOptions(Options):
    """Base of every attack's options. ``constrained`` is False for an attack that ignores the ε-ball."""

    name: ClassVar[str]
    constrained: ClassVar[bool] = True
    uses_epsilon: ClassVar[bool] = True
    note_without_source: ClassVar[str | None] = None  # of an attack that is meant to search another model

    @abstractmethod
    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """The methods for this threat and number of classes."""

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(steps, step size, restarts), as the record states them."""
        return (int(getattr(self, "steps", 1)), None, int(getattr(self, "restarts", 1)))

    def without_effect(self) -> Mapping[str, str]:
        """Fields that change nothing beside the other values, and what each would need."""
        return {}

    def check_effect(self) -> Self:
        """These options; :class:`UnusedOptionError` for a changed field that has no effect beside the others."""
        for field, needed in self.without_effect().items():
            if getattr(self, field) != type(self).model_fields[field].default:
                raise UnusedOptionError(field, reason=f"{self.name} ignores it without {needed}")
        return self


REGISTRY: dict[str, type[AttackOptions]] = {}
A = TypeVar("A", bound=AttackOptions)


def register(options: type[A]) -> type[A]:
    """Class decorator: make the attack known under its ``name``."""
    REGISTRY[options.name] = options
    return options


def unique_notes(*notes: str | None) -> tuple[str, ...]:
    """The notes that are not None, each once."""
    return tuple(dict.fromkeys(note for note in notes if note))
