"""Threads in place of the processes of one machine: what several do together is tested without starting any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from assay.runtime.processes import Processes

T = TypeVar("T")


class Threads(Processes):
    """They exchange values by a list and wait for each other at a barrier."""

    def __init__(self, rank: int, board: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(rank, len(board))
        object.__setattr__(self, "board", board)
        object.__setattr__(self, "barrier", barrier)

    def gather(self, value: Any) -> list[Any]:
        self.board[self.rank] = value  # type: ignore[attr-defined]
        self.barrier.wait(60)  # type: ignore[attr-defined]
        values = list(self.board)  # type: ignore[attr-defined]
        self.barrier.wait(60)  # type: ignore[attr-defined]
        return values


def run_in_threads(count: int, work: Callable[[Processes], T]) -> list[T]:
    board, barrier = [None] * count, threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, [Threads(rank, board, barrier) for rank in range(count)]))
