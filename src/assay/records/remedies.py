"""Remedies for vanishing and exploding gradients: the same task and seed, with and without each."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record

Problem = Literal["vanishing", "exploding"]


class RemedyRun(Frozen):
    """One training run.

    ``norms_before`` and ``norms_after`` are ‖∂L/∂z_t‖, t = 0 … T−1, of the last layer on the same test batch before
    and after training; ``rate_…`` and ``horizon_…`` their exponential fit. ``largest_gradient`` and
    ``median_gradient`` are of the whole parameter gradient over the steps, before clipping. ``diverged_at`` is the
    step whose loss was not finite. ``loss`` is on the test batch; infinite after a divergence.
    """

    remedy: str
    problem: Problem
    cell: str
    loss: float
    lowest_loss: float
    rate_before: float
    rate_after: float
    horizon_before: float
    horizon_after: float
    norms_before: tuple[float, ...]
    norms_after: tuple[float, ...]
    largest_gradient: float
    median_gradient: float
    diverged_at: int | None
    seconds: float


class RemedyEffect(Frozen):
    """What one remedy did against one problem, in a word and in the numbers it rests on."""

    remedy: str
    problem: Problem
    verdict: Literal["helps", "does not help", "makes it worse"]
    because: str


class RemedyComparison(Record):
    """All runs of one comparison; the first run of each problem, ``nothing``, is what the others are held against."""

    kind: Literal["remedy_comparison"] = "remedy_comparison"
    task: str
    length: int
    hidden: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    baseline: float
    runs: tuple[RemedyRun, ...]
    effects: tuple[RemedyEffect, ...]
    seconds: float
