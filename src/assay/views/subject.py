"""Whom the views are about: a model, its data, and how a command line calls the two."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import Field
from torch import nn

from assay.data.dataset import ImageDataset
from assay.errors import AssayError, OptionError
from assay.options import Options


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


def command(verb: str, *words: str) -> str:
    """``assay VERB …``, quoted for a shell."""
    return shlex.join(["assay", verb, *words])


def about(subject: Subject, *words: str) -> str:
    """``assay look MODEL --data …`` and what follows."""
    return command("look", *subject.words, *words)


class Limits(Options):
    """Bounds of one request.

    ``upload_bytes``   the largest file that may be dropped
    ``upload_pixels``  the largest picture that is decoded: a small file can hold a huge one
    ``longest``        pixels of the longer side of a picture that is factorised
    ``steps``          the most steps of an attack
    ``seconds``        an attack that takes longer is stopped
    ``hidden``, ``length``  the largest recurrence and the longest sequence
    ``waiting``        requests that may wait in line; further ones are turned away
    """

    upload_bytes: int = Field(default=10_000_000, ge=1)
    upload_pixels: int = Field(default=40_000_000, ge=1)
    longest: int = Field(default=384, ge=1)
    steps: int = Field(default=200, ge=1)
    seconds: float = Field(default=10.0, gt=0)
    hidden: int = Field(default=64, ge=1)
    length: int = Field(default=200, ge=2)
    waiting: int = Field(default=100, ge=1)


LIMITS = Limits()


class OutOfTimeError(AssayError):
    """The time that one request may take is over."""


def until(seconds: float) -> Callable[..., None]:
    """A callback that raises :class:`OutOfTimeError` once ``seconds`` have passed, whatever it is called with."""
    end = time.monotonic() + seconds

    def check(*_: object) -> None:
        if time.monotonic() > end:
            raise OutOfTimeError(f"stopped after {seconds:g} s")

    return check


def at_most(value: float, limit: float, *, where: str) -> None:
    """Raise :class:`OptionError` when a number is beyond its limit."""
    if not value <= limit:
        raise OptionError(where, expected=f"at most {limit:g}", got=value)
