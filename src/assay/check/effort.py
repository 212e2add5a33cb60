"""What an image costs in a stage of a check, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assay.records.budget import Budget

Passes = tuple[float, float]  # (forward, forward and backward) through the model


@dataclass(frozen=True)
class Effort:
    """How a stage grows with its number of images.

    Attributes:
        samples: the field of the budget that holds this number.
        passes: an image needs at most.
        searches: whether it needs many fewer passes where attacks succeed early.
        weight: of its evidence beside that of other stages.
        least: images below which the evidence is worth nothing.
        interval: whether an accuracy is counted over the images, which then has a confidence interval.
        enough: images, about, after which it mostly leaves out the others; None for a stage that takes all.
    """

    samples: str
    passes: Callable[[Budget], Passes]
    searches: bool = False
    weight: float = 1.0
    least: int = 32
    interval: bool = True
    enough: int | None = None


def clean_passes(budget: Budget) -> Passes:
    return 1, 0


def attack_passes(budget: Budget) -> Passes:
    """FGSM and PGD, each result verified and rounded; signed steps and noise on fewer images are little beside them."""
    return 6, budget.steps * budget.restarts + 2


def sanity_passes(budget: Budget) -> Passes:
    """PGD of 20 steps at three sizes and of 80 in all, APGD-T of 150, and the search without gradients."""
    return budget.sanity_queries + 30, 293


def curve_passes(budget: Budget) -> Passes:
    """PGD of ten steps at six sizes."""
    return 13, 60


def invariance_passes(budget: Budget) -> Passes:
    """Twelve operations at five strengths."""
    return 61, 0


def audit_passes(budget: Budget) -> Passes:
    """The other preparations; statistics of every layer."""
    return 10, 0


def map_passes(budget: Budget) -> Passes:
    """Four maps, half of them again at two depths of random weights; nine places on eight curves of deletion."""
    return 75, 60


def gradient_passes(budget: Budget) -> Passes:
    return 2, 2
