"""Where the wall time of a training run goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from assay.records.training import TimeSplit

P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Seconds by part of the work, added up over a run; ``seconds`` starts where an interrupted run left off.

    Parts are those of :class:`~assay.records.training.TimeSplit`. On a device that works on its own, a part's time is
    what the host waited for.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside towards ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def timed(self, name: str, work: Callable[P, R]) -> Callable[P, R]:
        """``work``, every call of it counted towards ``name``."""

        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.part(name):
                return work(*args, **kwargs)

        return counted

    def split(self, *, training: float) -> TimeSplit:
        """The record, given the seconds of all steps: what no other part of a step took is the network's."""
        inside = sum(self.seconds.get(name, 0.0) for name in ("images", "adversary", "update"))
        return TimeSplit(network=max(0.0, training - inside), **self.seconds)
