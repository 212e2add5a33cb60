"""What a claim is, the options of its experiment, and the list of all claims."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.data.sources import load_dataset
from assay.records.claims import BudgetName, ClaimEvidence

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """One run's options, the same for every claim.

    Attributes:
        budget: ``quick`` (minutes for all claims), ``full``, or ``tiny`` (seconds: a test that everything runs).
        data: ``digits`` or ``cifar10``; ``data_dir`` is where it is looked for first.
        seed: the first of the seeds.
        folder: where claims keep what they share, such as a trained network; None keeps nothing.
        model: a network of the user's for the claims about trained networks, with its ``weights``; ``trust_code``
            opens also one that can run code of its own.
    """

    budget: BudgetName = "quick"
    data: str = "digits"
    data_dir: Path | None = None
    seed: int = 0
    folder: Path | None = None
    model: str | None = None
    weights: Path | None = None
    trust_code: bool = False

    def pick(self, *, tiny: T, quick: T, full: T) -> T:
        """The value of this run's budget."""
        return {"tiny": tiny, "quick": quick, "full": full}[self.budget]

    def seeds(self, n: int) -> tuple[int, ...]:
        """``n`` seeds, from ``seed`` on."""
        return tuple(range(self.seed, self.seed + n))

    def train(self, *, side: int | None = None) -> ImageDataset:
        """The training split, resized to ``side`` × ``side`` pixels where it is given."""
        return load_dataset(self.data, split="train", data_dir=self.data_dir, image_size=side)

    def test(self, *, side: int | None = None) -> ImageDataset:
        return load_dataset(self.data, split="test", data_dir=self.data_dir, image_size=side)


Experiment = Callable[[Settings], ClaimEvidence]


@dataclass(frozen=True)
class Claim:
    """A textbook statement, and the experiment that decides it.

    Attributes:
        id: stable for ever, in kebab case.
        sentence: the statement, true when the verdict is ``supported``.
        decides: what is measured to decide it, in one sentence, with the margins of indifference.
        would_change: what other setting, budget or reading could change the verdict.
        references: where the statement is taught, and where it is examined; an ``arXiv:…`` number becomes a link.
        measure: the experiment; it measures and does not judge: see :mod:`assay.claims.rule`.
    """

    id: str
    sentence: str
    decides: str
    would_change: str
    references: tuple[str, ...]
    measure: Experiment


ORDER = (
    "residual-depth", "residual-shape", "norm-order", "bottleneck", "modes-differ", "decay-bias", "group-by-name",
    "augment-helps", "factor-nonconvex", "factor-svd", "factor-gauge", "attack-steps", "attack-collapse",
    "attack-random", "rnn-norm", "rnn-bounded", "rnn-clip", "rnn-decay", "lstm-forget", "attention-path"
)  # fmt: skip
_registered: dict[str, Claim] = {}


@checked
def register_claim(
    claim_id: str, sentence: str, *, decides: str, would_change: str, references: tuple[str, ...]
) -> Callable[[Experiment], Experiment]:
    """Decorator of an experiment: the claim is listed, in the place that :data:`ORDER` gives it, else at the end."""

    def register(measure: Experiment) -> Experiment:
        _registered[claim_id] = Claim(claim_id, sentence, decides, would_change, references, measure)
        return measure

    return register


def list_claims() -> tuple[Claim, ...]:
    """Every claim of the modules of this package, in the order in which they are reported."""
    package = importlib.import_module("assay.claims")
    for module in pkgutil.iter_modules(package.__path__, "assay.claims."):
        importlib.import_module(module.name)
    places = {claim_id: place for place, claim_id in enumerate(ORDER)}
    return tuple(sorted(_registered.values(), key=lambda claim: (places.get(claim.id, len(places)), claim.id)))
