"""Processes that share a job of this one, where the system can fork it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def can_fork() -> bool:
    """Whether this process can be forked: on Linux, and where it is not itself a worker that may have no children.

    On other systems a child would have to import everything anew, which takes longer than what is shared out.
    """
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


@contextmanager
def forked_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of forked processes. They compute without torch, whose threads do not survive a fork, and leave signals to
    this process, which ends them.
    """
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_signals)
    with pool:
        with warnings.catch_warnings():
            # Of other threads only those of torch are there, and no child waits for what one of them holds.
            warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
            pool.submit(int)  # with the first task all processes are forked
        yield pool


def _leave_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
