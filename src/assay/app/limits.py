"""What one request may cost, so that no visitor of the app can take the machine from the others."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field

from assay.errors import AssayError, OptionError
from assay.options import Options


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
