"""What a fix is: a change to a copy of the model, and which stages of the check see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from assay.check.stages import CheckContext
from assay.data.dataset import ImageDataset
from assay.data.selection import random_sample
from assay.models.factorized import LayerFactors
from assay.records.comparison import Difference, Reading
from assay.records.finding import Status


class RefusedError(Exception):
    """A fix cannot be applied here; the message says why."""


@dataclass(frozen=True, eq=False)
class FixContext:
    """``model`` as given (fixes work on copies), the measured samples, and ``train``, which has none of them."""

    model: nn.Module
    check: CheckContext
    train: ImageDataset | None
    train_note: str

    def training_images(self, n: int) -> ImageDataset:
        """``n`` of the training images, drawn by the seed; refuses where there are none."""
        if self.train is None:
            raise RefusedError(self.train_note)
        return random_sample(self.train, n, key=(self.check.seed, 0xF1))


@dataclass(frozen=True, eq=False)
class Change:
    """A fixed copy, what was done to it, and the numbers that the fix itself took.

    ``model`` is None where only training would change. ``status`` and ``measured`` are the rule judged again where no
    stage of the check can do it.
    """

    applied: str
    model: nn.Module | None = None
    factorization: tuple[LayerFactors, ...] = ()
    effects: tuple[Difference, ...] = ()
    readings: tuple[Reading, ...] = ()
    status: Status | None = None
    measured: str = ""
    value: float = float("nan")


@dataclass(frozen=True)
class Fix:
    """A named fix. ``stages`` of the check are run again on the copy, besides accuracy and attacks."""

    name: str
    changes: Literal["weights", "mode", "training"]
    apply: Callable[[FixContext], Change]
    stages: tuple[str, ...] = field(default=())
