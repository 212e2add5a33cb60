"""What a run trains on, step by step, and what is asked of the model there: all that the loop does not know."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import nn

from assay.training.sampling import Sampler
from assay.training.step import Lesson

if TYPE_CHECKING:
    from assay.training.checkpoint import RunState


class Curriculum(ABC):
    """The steps of one run: a pure function of (recipe, data, seed, step), the same for every number of processes.

    ``name``       what the data is called
    ``facts``      what ``config.json`` says of it; a run resumes only where they are equal
    ``samples``    what one sample is
    ``loss_unit``  what the loss is measured in
    ``ceiling``    a loss above it is divergence as well as one that is not finite
    """

    samples: ClassVar[Literal["images", "sequences"]]
    name: str
    facts: dict[str, Any]
    loss_unit: str = "nats"
    ceiling: float = math.inf

    def __init__(self, sampler: Sampler, *, epochs: float) -> None:
        self._sampler = sampler
        self.steps = sampler.steps(epochs)

    @property
    def n(self) -> int:
        """Samples in an epoch."""
        return self._sampler.n

    @property
    def batch_size(self) -> int:
        """Samples of a step, over all processes."""
        return self._sampler.size

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that ``step`` is in."""
        return self._sampler.epoch(step)

    def closes_epoch(self, step: int) -> bool:
        """Is it the last step of its epoch, or of the run?"""
        return step + 1 == self.steps or self.epoch(step + 1) != self.epoch(step)

    @abstractmethod
    def lessons(self, step: int, state: RunState) -> Sequence[tuple[int, Lesson]]:
        """This process's micro-batches of ``step``, each with its number in the whole batch."""

    def remember(self, step: int, state: RunState) -> None:
        """After the lessons of ``step``: keep in ``state`` what later steps are chosen by."""
        return

    def review(self, model: nn.Module, state: RunState, *, epoch: int) -> dict[str, object] | None:
        """After an epoch: a look at what may have gone wrong, for the log; may change ``state``."""
        return None

    @abstractmethod
    def finish(self, model: nn.Module) -> None:
        """Whatever the weights to keep still need."""
