"""One process a claim: they run side by side, and one that dies takes no other with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import torch

from assay.claims.claim import Claim, Settings
from assay.claims.rule import conclude, weigh
from assay.errors import AssayError
from assay.records.claims import ClaimResult, FailedClaim

PATIENCE = 0.2  # seconds between two looks at whether the run is to be stopped
Outcome = ClaimResult | FailedClaim


def examine(claim: Claim, settings: Settings) -> ClaimResult:
    """Measure one claim in this process, and judge it."""
    started = time.perf_counter()
    evidence = claim.measure(settings)
    effects = weigh(evidence)
    verdict, because = conclude(evidence, effects)
    return ClaimResult(
        id=claim.id,
        sentence=claim.sentence,
        decides=claim.decides,
        would_change=claim.would_change,
        references=claim.references,
        budget=settings.budget,
        data=settings.data,
        seed=settings.seed,
        evidence=evidence,
        effects=effects,
        verdict=verdict,
        because=because,
        seconds=time.perf_counter() - started,
    )


class Workers:
    """At most ``processes`` claims at a time, each in a process with one thread; a context manager.

    Leaving the block early ends the processes that still run, and they end by themselves should this process die.
    """

    def __init__(self, settings: Settings, *, processes: int) -> None:
        self._settings = settings
        self._processes = processes
        self._context = _context()
        self._running: dict[Connection, tuple[Claim, BaseProcess]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        processes = [process for _claim, process in self._running.values()]
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        self._running.clear()

    @property
    def running(self) -> tuple[str, ...]:
        """The claims that are being measured."""
        return tuple(claim.id for claim, _ in self._running.values())

    def outcomes(self, claims: Sequence[Claim]) -> Iterator[Outcome | None]:
        """Each outcome as it comes; None when another claim has begun, and several times a second."""
        waiting = list(claims)
        while waiting or self._running:
            while waiting and len(self._running) < self._processes:
                self._start(waiting.pop(0))
                yield None
            for ready in wait(list(self._running), timeout=PATIENCE):
                assert isinstance(ready, Connection)
                yield self._receive(ready)
            yield None

    def _start(self, claim: Claim) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(theirs, claim, self._settings), name=claim.id)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._running[ours] = (claim, process)

    def _receive(self, connection: Connection) -> Outcome:
        claim, process = self._running[connection]
        try:
            outcome: Outcome = connection.recv()
        except EOFError:
            process.join()
            how = f"its process ended with code {process.exitcode}, which a lack of memory can cause"
            outcome = FailedClaim(id=claim.id, sentence=claim.sentence, error=how)
        process.join()
        del self._running[connection]
        connection.close()
        return outcome


def _context() -> BaseContext:
    """Processes that start from a clean one in which torch is loaded already; elsewhere from nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver  # which not every system has

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["assay.claims"])
    if threading.current_thread() is threading.main_thread():
        former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # processes inherit it: Ctrl-C is for the parent alone
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, former)
    return context


def _work(connection: Connection, claim: Claim, settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    outcome: Outcome
    try:
        outcome = examine(claim, settings)
    except Exception as error:  # whatever it is, the other claims go on
        kind = "" if isinstance(error, AssayError) else f"{type(error).__name__}: "
        outcome = FailedClaim(id=claim.id, sentence=claim.sentence, error=" ".join(f"{kind}{error}".split()))
    connection.send(outcome)
    connection.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
