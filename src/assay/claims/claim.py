"""What a claim is, and what its experiment is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from assay.data.dataset import ImageDataset
from assay.data.sources import load_dataset
from assay.records.claims import BudgetName, Evidence

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """One run's choices, the same for every claim.

    ``budget``   ``quick`` (minutes for all claims), ``full``, or ``tiny`` (seconds: says that it runs, not what holds)
    ``data``     ``digits`` or ``cifar10``; ``data_dir`` is where it is looked for first
    ``seed``     the first of the seeds
    ``folder``   where claims keep what they share, such as a trained network; None: nowhere
    ``model``    a network of the user's for the claims about trained networks, with its ``weights``
    """

    budget: BudgetName = "quick"
    data: str = "digits"
    data_dir: Path | None = None
    seed: int = 0
    folder: Path | None = None
    model: str | None = None
    weights: Path | None = None

    def pick(self, *, tiny: T, quick: T, full: T) -> T:
        """The value of this run's budget."""
        return {"tiny": tiny, "quick": quick, "full": full}[self.budget]

    def seeds(self, n: int) -> tuple[int, ...]:
        """``n`` seeds, from ``seed`` on."""
        return tuple(range(self.seed, self.seed + n))

    def train(self, *, side: int | None = None) -> ImageDataset:
        """The training split; ``side``: brought to that many pixels a side."""
        return load_dataset(self.data, split="train", data_dir=self.data_dir, image_size=side)

    def test(self, *, side: int | None = None) -> ImageDataset:
        """The test split."""
        return load_dataset(self.data, split="test", data_dir=self.data_dir, image_size=side)


@dataclass(frozen=True)
class Claim:
    """A sentence as courses teach it, and the experiment that decides it.

    ``id``            stable for ever, in kebab case
    ``sentence``      the statement, true when the verdict is ``supported``
    ``decides``       what is measured to decide it, in one sentence, with the margins of indifference
    ``would_change``  what other setting, budget or reading could change the verdict
    ``references``    where the sentence is taught, and where it is examined; an ``arXiv:…`` number becomes a link
    ``measure``       the experiment; it measures and never judges: see :mod:`assay.claims.rule`
    """

    id: str
    sentence: str
    decides: str
    would_change: str
    references: tuple[str, ...]
    measure: Callable[[Settings], Evidence]
