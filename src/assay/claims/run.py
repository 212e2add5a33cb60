"""Run claims side by side, keep each result as it comes, and put them into one record."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from assay.claims.claim import Claim, Settings
from assay.claims.registry import CLAIMS
from assay.claims.rule import conclude, weigh
from assay.errors import AssayError, InterruptedRunError, OptionError, OutputError
from assay.files import exclusive, make_folder, remove_leftovers
from assay.models.sources.run_folder import WEIGHTS
from assay.records.claims import ClaimResult, ClaimsReport, FailedClaim
from assay.runtime import describe_environment
from assay.runtime.processes import deferred_interrupts
from assay.runtime.store import ResumableStore

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


OnProgress = Callable[[tuple[str, ...], int, int], None]  # claims being measured, how many are done, of how many
OnOutcome = Callable[[ClaimResult | FailedClaim], None]


def run_claims(
    claims: Sequence[Claim],
    *,
    folder: Path,
    settings: Settings,
    processes: int | None = None,
    resume: bool = False,
    on_progress: OnProgress = lambda running, done, total: None,
    on_outcome: OnOutcome = lambda outcome: None,
) -> ClaimsReport:
    """Measure and judge ``claims``, at most ``processes`` at a time (None: one a core), one thread each.

    ``folder`` keeps every finished result; with ``resume`` those of the same settings are taken over. A claim whose
    experiment fails is reported as failed, and the others go on.

    Raises :class:`OutputError` when the folder cannot be written to or another run holds it, :class:`OptionError` when
    it holds results of other settings and ``resume`` is set, and :class:`InterruptedRunError` on SIGINT or SIGTERM.
    """
    if not claims:
        raise OptionError("claims", expected="at least one", got="none")
    started, clock = datetime.now(UTC), time.perf_counter()
    settings = replace(settings, folder=make_folder(folder))
    found: dict[str, ClaimResult | FailedClaim] = {}
    with exclusive(folder):
        store = ResumableStore(folder / "results", identify(settings))
        store.claim(replace=not resume)
        remove_leftovers(store.folder)
        finished = {claim.id: result for claim in claims if resume and (result := read_result(store, claim.id))}
        found.update(finished)
        todo = [claim for claim in claims if claim.id not in finished]
        with (
            deferred_interrupts(enabled=True) as interrupts,
            Workers(settings, processes=processes or count_cores()) as workers,
        ):
            for outcome in workers.outcomes(todo):
                if outcome is not None:
                    found[outcome.id] = outcome
                    if isinstance(outcome, ClaimResult):
                        store.write(outcome.id, outcome.model_dump_json())
                    on_outcome(outcome)
                on_progress(workers.running, len(found), len(claims))
                if interrupts.pending is not None:
                    done = f"{len(found)} of {len(claims)} claims are done"
                    raise InterruptedRunError(f"interrupted; {done}; go on with --resume")
    outcomes = [found[claim.id] for claim in claims]
    return ClaimsReport(
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        budget=settings.budget,
        data=settings.data,
        model=settings.model,
        seed=settings.seed,
        environment=describe_environment(torch.device("cpu")),
        results=tuple(outcome for outcome in outcomes if isinstance(outcome, ClaimResult)),
        failed=tuple(outcome for outcome in outcomes if isinstance(outcome, FailedClaim)),
        seconds=time.perf_counter() - clock,
    )


def identify(settings: Settings) -> dict[str, Any]:
    """Everything that a result follows from: version, budget, data, seed, model and the SHA-256 of its weights."""
    weights, digest = settings.weights, None
    if weights is None and settings.model is not None:
        weights = Path(settings.model) / WEIGHTS
    if weights is not None and weights.is_file():
        try:
            with weights.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise OutputError(f"{weights}: cannot be read ({error.strerror or error})") from None
    named = {name: getattr(settings, name) for name in ("budget", "data", "seed", "model")}
    return {"version": version("assay"), **named, "weights": digest}


def read_result(store: ResumableStore, claim: str) -> ClaimResult | None:
    """The finished result of this claim; None where there is none, or one that is damaged or of another version."""
    try:
        return ClaimResult.model_validate_json(store.path(claim).read_bytes())
    except (OSError, ValidationError):
        return None


def find_claims(ids: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these ids, each once, in the order of the registry; all of them for none.

    Raises :class:`OptionError` for an id that there is not, naming the nearest.
    """
    from difflib import get_close_matches

    known = {claim.id: claim for claim in CLAIMS}
    for name in ids:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise OptionError("ID", expected="a claim of `assay claims --list`", got=f"{name!r}{hint}")
    return tuple(claim for claim in CLAIMS if not ids or claim.id in ids)


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
