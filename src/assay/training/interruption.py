"""Ctrl-C and SIGTERM between two steps, never within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """``pending`` becomes the name of the first signal that came; a second one is not held back."""

    def __init__(self) -> None:
        self.pending: str | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        """Remember the signal; at the second one give up waiting for the step to end."""
        if self.pending is not None:
            raise KeyboardInterrupt
        self.pending = signal.Signals(number).name


@contextmanager
def deferred_interrupts(*, enabled: bool) -> Iterator[Interrupts]:
    """Hold SIGINT and SIGTERM back inside the block and tell of them; outside the main thread they cannot be held."""
    interrupts = Interrupts()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    former = {number: signal.signal(number, interrupts.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
