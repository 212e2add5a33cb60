"""Whom the views are about: a model, its data, and how a command line calls the two."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn

from assay.data.dataset import ImageDataset


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and a data set that it fits; ``words`` name both on a command line, before and after the verb's own.

    Probing a model sets its mode and freezes its parameters for a moment, so two requests must not do it at once:
    :meth:`alone` hands it to one at a time.
    """

    model: nn.Module
    dataset: ImageDataset
    name: str = "model"
    words: tuple[str, ...] = ()
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def alone(self) -> Iterator[nn.Module]:
        """The model, while nobody else has it."""
        with self._turn:
            yield self.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""
        return self.dataset.classes
