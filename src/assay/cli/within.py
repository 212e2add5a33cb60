"""``--within``: a wall time in the words of a command line, and what of it is left."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Annotated

from assay.cli.options import option
from assay.errors import OptionError

STARTED = time.monotonic()  # as good as the start of the program: the verbs are imported before torch is
_PAGE_SECONDS = 7.0  # of a processor, to draw a page
_UNITS = (3600.0, 60.0, 1.0)
_DURATION = re.compile(r"(?=.)(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?")

Within = Annotated[
    str | None,
    option(
        "Run",
        "Plan the work into this wall time, such as 90s, 5m or 1h30m: fewer images, wider intervals.",
        metavar="TIME",
    ),
]


def parse_duration(text: str, *, where: str = "--within") -> float:
    """``90s``, ``5m`` or ``1h30m`` in seconds; :class:`OptionError` otherwise."""
    match = _DURATION.fullmatch(text.strip())
    seconds = 0.0
    if match is not None:
        with suppress(ValueError):  # several points in one number
            seconds = sum(float(part) * unit for part, unit in zip(match.groups("0"), _UNITS, strict=True))
    if not 0 < seconds < 1e9:
        raise OptionError(where, expected="a time such as 90s, 5m or 1h30m", got=repr(text))
    return seconds


def seconds_since_start() -> float:
    """Of the wall time, what has passed: importing and opening, then the work."""
    return time.monotonic() - STARTED


def seconds_around_stages() -> float:
    """Of the wall time, what importing and opening have taken, and drawing the page will take.

    Where other work makes the processor wait, drawing takes as much longer as everything did so far.
    """
    passed = seconds_since_start()
    return passed + _PAGE_SECONDS * max(1.0, passed / max(time.process_time(), 1e-3))
