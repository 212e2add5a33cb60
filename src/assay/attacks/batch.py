"""Samples under attack, one row each: rows join a batch, leave it when they are broken, and others take their place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Generic, Literal, Self, TypeVar

import torch
from torch import Tensor

from assay.attacks.losses import AttackLoss, cross_entropy, margin, target_lead, targeted_loss
from assay.attacks.threat import Threat


class Rows:
    """A dataclass whose every field is a tensor with one row a sample."""

    def take(self, rows: Tensor) -> Self:
        """The rows at ``rows`` (int64 indices, or a boolean mask)."""
        return self._map(lambda name: getattr(self, name)[rows])

    def join(self, other: Self) -> Self:
        """These rows, then the others'."""
        return self._map(lambda name: torch.cat([getattr(self, name), getattr(other, name)]))

    def _map(self, change: Callable[[str], Tensor]) -> Self:
        return replace(self, **{field.name: change(field.name) for field in fields(self)})  # type: ignore[type-var,arg-type]


@dataclass(eq=False)
class Samples(Rows):
    """What an attack is given of each sample."""

    index: Tensor  # int64 (B,), its row among all samples of the attack
    ids: Tensor  # int64 (B,), the keys of its random numbers
    images: Tensor  # float (B, C, H, W)
    labels: Tensor  # int64 (B,)
    epsilon: Tensor  # float (B,), in pixel units
    logits: Tensor  # float (B, K), on the clean image
    target_class: Tensor  # int64 (B,), the only class that counts as success; −1 where any but the label does

    def __len__(self) -> int:
        return len(self.index)


@dataclass(eq=False)
class ActiveBatch(Samples):
    """Samples and the state of their attack; a method adds fields of its own in a subclass."""

    iterate: Tensor  # float (B, C, H, W), the image that the model evaluates next
    step: Tensor  # int64 (B,), the number of updates that led to it
    loss_class: Tensor  # int64 (B,), the class that a targeted loss raises
    wants_gradient: Tensor  # bool (B,), rows that need more than logits
    done: Tensor  # bool (B,), rows that have nothing left to try


@dataclass(eq=False)
class ModelOutput(Rows):
    """The model at ``iterate``."""

    logits: Tensor  # (B, K)
    losses: Tensor  # (B,), the method's own loss
    gradient: Tensor  # (B, C, H, W), zero where it was not wanted
    broken: Tensor  # bool (B,), success inside the ball and the pixel bounds, not yet verified


def initial_fields(
    samples: Samples, *, iterate: Tensor, gradient: bool = True, rank: int | None = None
) -> dict[str, Tensor]:
    """The fields of an :class:`ActiveBatch` at step 0, for the constructor of a method's own subclass.

    ``rank`` n ≥ 2 makes the class that is n-th most likely on the clean image the loss class of samples that have no
    target class.
    """
    untargeted = samples.labels if rank is None else samples.logits.argsort(dim=1, descending=True)[:, rank - 1]
    return {
        **{field.name: getattr(samples, field.name) for field in fields(Samples)},
        "iterate": iterate,
        "step": torch.zeros_like(samples.index),
        "loss_class": torch.where(samples.target_class >= 0, samples.target_class, untargeted),
        "wants_gradient": torch.full_like(samples.index, gradient, dtype=torch.bool),
        "done": torch.zeros_like(samples.index, dtype=torch.bool),
    }


# What a row leaves behind: its first adversarial image (it then leaves the batch), the nearest, or its last iterate.
Keeps = Literal["first", "nearest", "last"]
B = TypeVar("B", bound=ActiveBatch)


@dataclass(frozen=True, kw_only=True)
class Method(ABC, Generic[B]):
    """One attack as a state machine over a batch; the engine owns every call of the model.

    The engine evaluates ``iterate``, passes the output to ``advance``, which returns the next iterate, and so on until
    a row has made ``steps`` updates.
    """

    name: str  # what results call it
    steps: int  # the most updates of a row
    loss: AttackLoss = cross_entropy  # what it maximises
    keeps: Keeps = "first"
    stays_inside: bool = True  # whether every iterate lies in the ball; one outside is then counted as a fault
    takes_gradients: bool = True
    seed: int = 0  # of its random numbers
    stream: int = 0  # distinguishes restarts

    @abstractmethod
    def begin(self, samples: Samples, threat: Threat) -> B:
        """The batch at step 0."""

    @abstractmethod
    def advance(self, batch: B, output: ModelOutput, threat: Threat) -> B:
        """The same batch after one update; a method counts its own steps, so an evaluation may cost none."""

    def targeted(self) -> Self | None:
        """The same method towards each sample's target class; None for one that would then repeat another."""
        return replace(self, loss=targeted_loss(self.loss))


@dataclass(frozen=True, kw_only=True)
class RankedMethod(Method[B]):
    """``rank`` n ≥ 2 raises the class that is n-th most likely on the clean image; None is untargeted."""

    rank: int | None = None

    def targeted(self) -> Self | None:
        """Ranks differ by that class alone, so one of them is enough."""
        return None if self.rank is not None and self.rank > 2 else super().targeted()


def predictions(logits: Tensor) -> Tensor:
    """int64 (B,): the class of the largest logit; −1 where a logit is not finite, which is never correct."""
    return torch.where(logits.isfinite().all(dim=1), logits.argmax(dim=1), -1)


def succeeds(logits: Tensor, samples: Samples) -> Tensor:
    """bool (B,): the target class is predicted or, for samples without one, anything but the label."""
    predicted = predictions(logits)
    return torch.where(samples.target_class >= 0, predicted == samples.target_class, predicted != samples.labels)


def success_margin(logits: Tensor, samples: Samples) -> Tensor:
    """The margin by which each sample succeeds, (B,): positive exactly where it does, for finite logits."""
    untargeted = margin(logits, samples.labels, samples.labels)
    if not bool((samples.target_class >= 0).any()):
        return untargeted
    lead = target_lead(logits, samples.labels, samples.target_class.clamp_min(0))
    return torch.where(samples.target_class >= 0, lead, untargeted)
