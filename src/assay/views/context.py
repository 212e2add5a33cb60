"""The model and data that the views share, and the limits of a request."""

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
class ViewContext:
    """A model and a data set that it fits; ``words`` are the arguments that name both on a command line.

    Measuring sets the model's mode and freezes its parameters for a moment, so two requests must not do it at once:
    :meth:`exclusive_model` gives it to one at a time.
    """

    model: nn.Module
    dataset: ImageDataset
    name: str = "model"
    words: tuple[str, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def exclusive_model(self) -> Iterator[nn.Module]:
        """The model, locked for the length of the block."""
        with self._lock:
            yield self.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""
        return self.dataset.classes


def command(verb: str, *words: str) -> str:
    """``assay VERB …``, quoted for a shell."""
    return shlex.join(["assay", verb, *words])


def look_command(context: ViewContext, *words: str) -> str:
    """``assay look MODEL --data …``, then ``words``."""
    return command("look", *context.words, *words)


class Limits(Options):
    """Bounds of one request.

    ``upload_bytes``   size of an uploaded file
    ``upload_pixels``  pixels of a picture that is decoded: a small file can hold a huge one
    ``longest``        pixels of the longer side of a picture that is factorised
    ``steps``          steps of an attack
    ``seconds``        time of an attack, after which it is stopped
    ``hidden``, ``length``  units of a recurrence and steps of its sequence
    ``queue``          requests in the queue; further ones are refused
    """

    upload_bytes: int = Field(default=10_000_000, ge=1)
    upload_pixels: int = Field(default=40_000_000, ge=1)
    longest: int = Field(default=384, ge=1)
    steps: int = Field(default=200, ge=1)
    seconds: float = Field(default=10.0, gt=0)
    hidden: int = Field(default=64, ge=1)
    length: int = Field(default=200, ge=2)
    queue: int = Field(default=100, ge=1)


LIMITS = Limits()
NO_LIMITS = Limits(steps=10_000, seconds=1e6)  # at a terminal, where Ctrl-C ends an attack


class OutOfTimeError(AssayError):
    """A request took longer than it may."""


def deadline(seconds: float) -> Callable[..., None]:
    """A callback that raises :class:`OutOfTimeError` once ``seconds`` have passed, whatever it is called with."""
    end = time.monotonic() + seconds

    def check(*_: object) -> None:
        if time.monotonic() > end:
            raise OutOfTimeError(f"stopped after {seconds:g} s")

    return check


def check_limit(value: float, limit: float, *, where: str) -> None:
    if not value <= limit:
        raise OptionError(where, expected=f"at most {limit:g}", got=value)
