"""Samples under attack, one row each: they join a batch, leave it when they break, and others take their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from assay.attacks.losses import AttackLoss, margin, target_lead
from assay.attacks.threat import Threat


class Rows:
    """A dataclass whose every field is a tensor with one row a sample."""

    def take(self, rows: Tensor) -> Self:
        """The rows at ``rows`` (int64 indices, or a boolean mask)."""
        return self._each(lambda name: getattr(self, name)[rows])

    def join(self, other: Self) -> Self:
        """These rows, then the others'."""
        return self._each(lambda name: torch.cat([getattr(self, name), getattr(other, name)]))

    def _each(self, change: Callable[[str], Tensor]) -> Self:
        return replace(self, **{field.name: change(field.name) for field in fields(self)})  # type: ignore[type-var,arg-type]


@dataclass(eq=False)
class Samples(Rows):
    """What an attack is given of each sample.

    ``index`` int64 (B,): its place in the problem. ``ids`` int64 (B,): what its random numbers hang on. ``images``
    float (B, C, H, W), ``labels`` int64 (B,), ``epsilon`` float (B,), ``logits`` float (B, K) on the clean image.
    ``target_class`` int64 (B,): the class to be reached, −1 where any but the label will do.
    """

    index: Tensor
    ids: Tensor
    images: Tensor
    labels: Tensor
    epsilon: Tensor
    logits: Tensor
    target_class: Tensor

    def __len__(self) -> int:
        return len(self.index)


@dataclass(eq=False)
class ActiveBatch(Samples):
    """Samples and where their attack stands.

    ``iterate`` (B, C, H, W) is the image the model is asked about next, ``step`` int64 (B,) counts the moves that
    led to it, ``loss_class`` int64 (B,) is the class a targeted loss moves towards, ``wants_gradient`` bool (B,) tells
    which rows need more than logits, ``done`` bool (B,) marks rows that have nothing left to try.
    """

    iterate: Tensor
    step: Tensor
    loss_class: Tensor
    wants_gradient: Tensor
    done: Tensor


@dataclass(eq=False)
class ModelOutput(Rows):
    """What the model said about ``iterate``.

    ``logits`` (B, K); ``losses`` (B,), the method's own; ``gradient`` (B, C, H, W), zero where not asked for;
    ``broken`` bool (B,): misclassified, inside the ball and the box.
    """

    logits: Tensor
    losses: Tensor
    gradient: Tensor
    broken: Tensor


def initial_fields(
    samples: Samples, *, iterate: Tensor, gradient: bool = True, rank: int | None = None
) -> dict[str, Tensor]:
    """The fields of fresh :class:`ActiveBatch` at step 0, for the constructor of a method's own kind of lanes.

    ``rank`` n ≥ 2 makes the class that is n-th most likely on the clean image the loss class of samples that have no
    target class.
    """
    return {
        **{field.name: getattr(samples, field.name) for field in fields(Samples)},
        "iterate": iterate,
        "step": torch.zeros_like(samples.index),
        "loss_class": torch.where(
            samples.target_class >= 0, samples.target_class, samples.labels if rank is None else _nth(samples, rank)
        ),
        "wants_gradient": torch.full_like(samples.index, gradient, dtype=torch.bool),
        "done": torch.zeros_like(samples.index, dtype=torch.bool),
    }


def _nth(samples: Samples, rank: int) -> Tensor:
    return samples.logits.argsort(dim=1, descending=True)[:, rank - 1]


Keeps = Literal["first", "nearest", "last"]
L = TypeVar("L", bound=ActiveBatch)


class Method(Protocol[L]):
    """One attack as a state machine over lanes; the engine owns every call of the model.

    The engine asks the model about ``iterate``, hands the answer to ``advance``, which moves it, and so on until a
    row has made ``steps`` moves. ``keeps`` says what a row leaves behind: the ``first`` adversarial image (and leaves
    at once), the ``nearest`` one, or wherever the ``last`` step led.
    """

    @property
    def name(self) -> str:
        """What the results call it."""

    @property
    def steps(self) -> int:
        """Moves a row makes at most."""

    @property
    def loss(self) -> AttackLoss:
        """What it climbs."""

    @property
    def keeps(self) -> Keeps:
        """Which image counts."""

    @property
    def stays_inside(self) -> bool:
        """Whether it promises candidates inside the ball; one outside is then worth counting."""

    def begin(self, samples: Samples, threat: Threat) -> L:
        """Lanes at step 0."""

    def advance(self, batch: L, output: ModelOutput, threat: Threat) -> L:
        """The same lanes, one move on; a method counts its own moves in ``step``, so an answer may cost none."""


def predictions(logits: Tensor) -> Tensor:
    """int64 (B,): the class of the largest logit; −1 where a logit is not finite, which is never right."""
    return torch.where(logits.isfinite().all(dim=1), logits.argmax(dim=1), -1)


def succeeds(logits: Tensor, samples: Samples) -> Tensor:
    """bool (B,): the target class is predicted or, for samples without one, anything but the label."""
    predicted = predictions(logits)
    return torch.where(samples.target_class >= 0, predicted == samples.target_class, predicted != samples.labels)


def success_margin(logits: Tensor, samples: Samples) -> Tensor:
    """How much a sample succeeds by, (B,): positive exactly where it does, for finite logits."""
    untargeted = margin(logits, samples.labels, samples.labels)
    if not bool((samples.target_class >= 0).any()):
        return untargeted
    led = target_lead(logits, samples.labels, samples.target_class.clamp_min(0))
    return torch.where(samples.target_class >= 0, led, untargeted)
