"""How much memory a batch may take: a usual number of bytes, less under a limit, and half of it where it ran out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from assay.errors import OptionError, one_line

T = TypeVar("T")
BATCH_BYTES = 2**28  # of one batch without gradients
BATCH_BYTES_WITH_GRADIENTS = 2**29
USUAL_PEAK = 5 * 2**29  # of a check above the loaded model, when batches take these bytes
LEAST_ROOM = 2**26  # above the loaded model, without which nothing can be measured
LEAST_SHARE = 2**-10  # of these bytes, below which memory that runs out is the failure of the measurement
_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


@dataclass(eq=False)
class BatchMemory:
    """The ``share`` of the usual bytes that batches take from here on, and how often it was halved."""

    share: float = 1.0
    halvings: int = 0

    def halve(self) -> bool:
        """Take half as many; False where that would be too few."""
        if self.share / 2 < LEAST_SHARE:
            return False
        self.share /= 2
        self.halvings += 1
        return True


def tell_halvings(count: int) -> str:
    """What a reader should know where memory ran out so often, empty where it never did."""
    return f"memory ran out: measured in batches of 1/{2**count} of the size from there on" if count else ""


_current: ContextVar[BatchMemory | None] = ContextVar("the memory of batches", default=None)


def batch_share() -> float:
    """Of the usual bytes of a batch: 1 where there is no limit and memory never ran out."""
    memory = _current.get()
    return 1.0 if memory is None else memory.share


def batch_bytes(*, gradients: bool) -> int:
    """The bytes that one batch may take."""
    return int(batch_share() * (BATCH_BYTES_WITH_GRADIENTS if gradients else BATCH_BYTES))


@contextmanager
def batch_memory(limit: int | None = None) -> Iterator[BatchMemory]:
    """A scope in which what is learned of the memory holds; with at most ``limit`` bytes for the whole process.

    Batches are then smaller from the start, and on Linux the system refuses what goes beyond. Raises
    :class:`OptionError` where the process fills nearly as much already.
    """
    memory = BatchMemory(batch_share())
    if limit is not None:
        filled = _status("VmRSS")
        least = filled + LEAST_ROOM
        if limit < least:
            expected = f"at least {least / 1e9:.1f} GB, as the model, the data and torch fill {filled / 1e9:.1f} GB"
            raise OptionError("memory", expected=expected, got=f"{limit / 1e9:.1f} GB")
        memory.share = min(memory.share, (limit - filled) / USUAL_PEAK)
    token = _current.set(memory)
    try:
        with _refusing_more_than(limit):
            yield memory
    finally:
        _current.reset(token)


def run_in_memory(run: Callable[[], T]) -> T:
    """The result of ``run``; where memory runs out it is run again with batches of half the size."""
    memory = _current.get()
    if memory is None:
        with batch_memory():
            return run_in_memory(run)
    while True:
        try:
            return run()
        except Exception as error:
            if not (ran_out_of_memory(error) and memory.halve()):
                raise
        gc.collect()  # what the failed run still held


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or one that it was made from, says that memory could not be had."""
    while error is not None:
        text = one_line(error, limit=1000).lower()
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in text for words in _WORDS):
            return True
        error = error.__cause__
    return False


@contextmanager
def _refusing_more_than(limit: int | None) -> Iterator[None]:
    """The process can take ``limit`` bytes and no more; nothing where the system cannot be asked for that."""
    with suppress(ImportError):
        import resource

        if limit is not None and hasattr(resource, "RLIMIT_DATA"):
            before = resource.getrlimit(resource.RLIMIT_DATA)
            reserved = _status("VmData") + max(0, limit - _status("VmRSS"))  # what is reserved need not be filled
            hard = before[1]
            soft = reserved if hard == resource.RLIM_INFINITY else min(reserved, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_DATA, before)
            return
    yield


def _status(key: str) -> int:
    """Bytes of this process, as the kernel tells them; 0 where it does not."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0
