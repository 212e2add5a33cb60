"""Run claims side by side, keep each result as it comes, and put them into one record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from assay.claims.claim import Claim, Settings
from assay.claims.journal import Journal
from assay.claims.registry import CLAIMS
from assay.claims.workers import Workers
from assay.errors import InterruptedRunError, OptionError
from assay.files import exclusive, make_folder
from assay.records.claims import ClaimResult, ClaimsReport, FailedClaim
from assay.runtime import describe_environment
from assay.training.interruption import deferred_interrupts

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

    Raises :class:`OutputError` when the folder cannot be written to or another run holds it, and
    :class:`InterruptedRunError` on SIGINT or SIGTERM.
    """
    if not claims:
        raise OptionError("claims", expected="at least one", got="none")
    started, clock = datetime.now(UTC), time.perf_counter()
    settings = replace(settings, folder=make_folder(folder))
    found: dict[str, ClaimResult | FailedClaim] = {}
    with exclusive(folder):
        journal = Journal(folder, settings, resume=resume)
        kept = {claim.id: result for claim in claims if (result := journal.find(claim.id)) is not None}
        found.update(kept)
        todo = [claim for claim in claims if claim.id not in kept]
        with (
            deferred_interrupts(enabled=True) as interrupts,
            Workers(settings, processes=processes or count_cores()) as workers,
        ):
            for outcome in workers.outcomes(todo):
                if outcome is not None:
                    found[outcome.id] = outcome
                    if isinstance(outcome, ClaimResult):
                        journal.add(outcome)
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
