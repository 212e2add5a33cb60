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

from assay.arguments import checked
from assay.claims.claim import Claim, Settings, list_claims
from assay.claims.rule import conclude, weigh
from assay.errors import AssayError, InterruptedRunError, OptionError, OutputError
from assay.files import exclusive, make_folder, remove_leftovers
from assay.models.sources.run_folder import WEIGHTS
from assay.records.claims import ClaimResult, ClaimsReport, FailedClaim
from assay.runtime import describe_environment
from assay.runtime.processes import deferred_interrupts
from assay.runtime.store import ResumableStore
from assay.wording import seconds

POLL_SECONDS = 0.2  # between two checks for an interrupt
WorkerResult = ClaimResult | FailedClaim


def _named(source: Claim | Settings, *fields: str) -> dict[str, Any]:
    return {field: getattr(source, field) for field in fields}


def examine(claim: Claim, settings: Settings) -> ClaimResult:
    """Measure one claim in this process, and judge it."""
    started = time.perf_counter()
    evidence = claim.measure(settings)
    effects = weigh(evidence)
    verdict, because = conclude(evidence, effects)
    return ClaimResult(
        **_named(claim, "id", "sentence", "decides", "would_change", "references"),
        **_named(settings, "budget", "data", "seed"),
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

    def measure(self, claims: Sequence[Claim]) -> Iterator[WorkerResult | None]:
        """Each result as it comes; None when another claim has begun, and several times a second."""
        waiting = list(claims)
        while waiting or self._running:
            while waiting and len(self._running) < self._processes:
                self._start(waiting.pop(0))
                yield None
            for ready in wait(list(self._running), timeout=POLL_SECONDS):
                assert isinstance(ready, Connection)
                yield self._receive(ready)
            yield None

    def _start(self, claim: Claim) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(theirs, claim, self._settings), name=claim.id)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._running[ours] = (claim, process)

    def _receive(self, connection: Connection) -> WorkerResult:
        claim, process = self._running[connection]
        try:
            result: WorkerResult = connection.recv()
        except EOFError:
            process.join()
            how = f"its process ended with code {process.exitcode}, which a lack of memory can cause"
            result = FailedClaim(id=claim.id, sentence=claim.sentence, error=how)
        process.join()
        del self._running[connection]
        connection.close()
        return result


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
    result: WorkerResult
    try:
        result = examine(claim, settings)
    except Exception as error:  # whatever it is, the other claims go on
        kind = "" if isinstance(error, AssayError) else f"{type(error).__name__}: "
        result = FailedClaim(id=claim.id, sentence=claim.sentence, error=" ".join(f"{kind}{error}".split()))
    connection.send(result)
    connection.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


OnProgress = Callable[[tuple[str, ...], int, int], None]  # claims being measured, how many are done, of how many
OnResult = Callable[[WorkerResult], None]


@checked
def run_claims(
    claims: Sequence[Claim],
    *,
    folder: Path,
    settings: Settings,
    processes: int | None = None,
    resume: bool = False,
    within: float | None = None,
    on_progress: OnProgress = lambda running, done, total: None,
    on_result: OnResult = lambda result: None,
) -> ClaimsReport:
    """Measure textbook claims and judge them: supported, refuted or undecided, each with effect and interval.

    Every claim runs in a process of its own with one thread; one whose experiment fails is reported as failed, and the
    others go on. The rule of judgement is that of :mod:`assay.claims.rule`.

    Args:
        claims: what ``find_claims`` returns, or claims of your own.
        folder: keeps every finished result, and the network that several claims share.
        settings: budget, data, seed and model; one for all claims.
        processes: claims measured at a time; by default one a core.
        resume: take over the finished results in ``folder``, which must be of the same settings.
        within: seconds after which claims that are not finished are left out, and reported among those that failed.
        on_progress: called with the ids that are running, the number of claims done, and that of all.
        on_result: called with each result as it is finished.
    Returns:
        The report: ``results`` with verdict, effects and evidence of each claim, and those that ``failed``.
    Raises:
        OptionError: no claims, or ``folder`` holds results of other settings and ``resume`` is set.
        OutputError: the folder cannot be written to, or another run holds it.
        InterruptedRunError: SIGINT or SIGTERM; finished results are kept.
    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import assay
        >>> claims = assay.claims.find_claims(["factor-nonconvex"])
        >>> settings = assay.claims.Settings(budget="tiny")
        >>> report = assay.run_claims(claims, folder=Path(tempfile.mkdtemp()), settings=settings)
        >>> [(result.id, result.verdict) for result in report.results]
        [('factor-nonconvex', 'supported')]
    """
    if not claims:
        raise OptionError("claims", expected="at least one", got="none")
    if within is not None and not within > 0:
        raise OptionError("within", expected="a number of seconds above 0", got=within)
    started, clock = datetime.now(UTC), time.perf_counter()
    environment = describe_environment(torch.device("cpu"))
    settings = replace(settings, folder=make_folder(folder))
    with exclusive(folder):
        store = ResumableStore(folder / "results", identify(settings))
        store.claim(replace=not resume)
        remove_leftovers(store.folder)
        results: dict[str, WorkerResult] = {
            claim.id: result for claim in claims if resume and (result := read_result(store, claim.id))
        }
        todo = [claim for claim in claims if claim.id not in results]
        with (
            deferred_interrupts(enabled=True) as interrupts,
            Workers(settings, processes=processes or environment.cores) as workers,
        ):
            for news in workers.measure(todo):
                if news is not None:
                    results[news.id] = news
                    if isinstance(news, ClaimResult):
                        store.write(news.id, news.model_dump_json())
                    on_result(news)
                on_progress(workers.running, len(results), len(claims))
                if within is not None and time.perf_counter() - clock > within:
                    break
                if interrupts.pending is not None:
                    done = f"{len(results)} of {len(claims)} claims are done"
                    raise InterruptedRunError(f"interrupted; {done}; go on with --resume")
    ordered = [results.get(claim.id) or _left_out(claim, within or 0.0) for claim in claims]
    return ClaimsReport(
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **_named(settings, "budget", "data", "model", "seed"),
        environment=environment,
        results=tuple(result for result in ordered if isinstance(result, ClaimResult)),
        failed=tuple(result for result in ordered if isinstance(result, FailedClaim)),
        seconds=time.perf_counter() - clock,
    )


def _left_out(claim: Claim, within: float) -> FailedClaim:
    reason = f"not measured within {seconds(within)}; --resume without a time measures it"
    return FailedClaim(id=claim.id, sentence=claim.sentence, error=reason)


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
    named = _named(settings, "budget", "data", "seed", "model")
    return {"version": version("assay"), **named, "weights": digest}


def read_result(store: ResumableStore, claim: str) -> ClaimResult | None:
    """The finished result of this claim; None where there is none, or one that is damaged or of another version."""
    try:
        return ClaimResult.model_validate_json(store.path(claim).read_bytes())
    except (OSError, ValidationError):
        return None


@checked
def find_claims(ids: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these ids, each once, in the order in which they are listed; all of them for none.

    Raises :class:`OptionError` for an id that there is not, naming the nearest.
    """
    from difflib import get_close_matches

    known = {claim.id: claim for claim in list_claims()}
    for name in ids:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise OptionError("ID", expected="a claim of `assay claims --list`", got=f"{name!r}{hint}")
    return tuple(claim for claim in known.values() if not ids or claim.id in ids)
