"""The stages of a check, in order: each asks one layer below for its records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from assay.attacks.examples import describe_attack, pick_gallery, pick_samples
from assay.attacks.measure import RobustnessMeasurement, measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.methods.gradient import FGSM, PGD, Noise, SignedSteps
from assay.attacks.options import AttackOptions
from assay.attacks.sanity import measure_attack_sanity
from assay.data.dataset import ImageDataset
from assay.diagnostics.batchnorm import audit_normalization
from assay.diagnostics.depth import measure_gradient_flow
from assay.diagnostics.invariance import measure_invariance
from assay.diagnostics.modes import audit_modes
from assay.diagnostics.saliency import measure_input_gradients
from assay.diagnostics.time import is_recurrent, measure_gradients_over_time
from assay.evaluate import Predictions, measure_clean_accuracy, predict
from assay.lowrank.spectrum import measure_spectra
from assay.models.anatomy import measure_anatomy
from assay.options import Options
from assay.records.base import Record
from assay.training.param_groups import measure_decay_groups


class Budget(Options):
    """Sample counts and iterations of the costly stages; None means all samples.

    ``clean``     samples for the accuracy on untouched images
    ``attacked``  samples for each attack and for the ε-curve
    ``probed``    samples for gradients and mode audits
    ``steps``     iterations of PGD;  ``restarts`` its random starts
    ``shown``     examples in each gallery;  ``pictured`` samples shown one by one
    ``doubted``   samples on which the attacks themselves are checked;  ``queries`` of the search without gradients
    """

    name: str
    clean: int | None
    attacked: int | None
    probed: int
    steps: int
    restarts: int
    shown: int = 12
    pictured: int = 300
    doubted: int = 64
    queries: int = 100


BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        name="quick", clean=2_000, attacked=200, probed=128, steps=10, restarts=1, pictured=200, doubted=32
    ),
    "standard": Budget(name="standard", clean=None, attacked=1_000, probed=256, steps=20, restarts=1),
    "full": Budget(
        name="full", clean=None, attacked=None, probed=1_024, steps=50, restarts=5, shown=24, doubted=200, queries=1_000
    ),
}


EPSILON = 8 / 255
CURVE_STEPS = 10


@dataclass(frozen=True, eq=False)
class Bench:
    """What every stage works on: the model, the samples of the three kinds of stage, the budget and the seed."""

    model: nn.Module
    dataset: ImageDataset
    clean: ImageDataset
    attacked: ImageDataset
    probed: ImageDataset
    budget: Budget
    seed: int
    name: str

    @classmethod
    def of(
        cls, model: nn.Module, dataset: ImageDataset, *, budget: Budget, limit: int | None, seed: int, name: str
    ) -> Bench:
        """Take the samples; ``limit`` bounds those that are attacked and probed."""
        most = len(dataset) if limit is None else min(limit, len(dataset))
        return cls(
            model=model,
            dataset=dataset,
            clean=first_mixed(dataset, budget.clean or len(dataset)),
            attacked=first_mixed(dataset, min(most, budget.attacked or most)),
            probed=first_mixed(dataset, min(most, budget.probed)),
            budget=budget,
            seed=seed,
            name=name,
        )

    @cached_property
    def known(self) -> Predictions:
        """The predictions on the untouched images that are attacked."""
        return predict(self.model, self.attacked)


def first_mixed(dataset: ImageDataset, n: int) -> ImageDataset:
    """The first ``n`` samples; evenly spaced ones where the set is ordered by class and the first would be no sample.

    Ordered means: the count of some class among the first n lies more than five standard deviations from n times its
    share of the whole.
    """
    if n >= len(dataset):
        return dataset
    k = len(dataset.classes)
    share = torch.bincount(dataset.labels, minlength=k).double() / len(dataset)
    counts = torch.bincount(dataset.labels[:n], minlength=k).double()
    deviation = (counts - n * share).abs() / (n * share * (1 - share)).sqrt().clamp_min(0.5)
    if bool((deviation > 5).any()):
        return dataset.subset(torch.arange(n) * len(dataset) // n)
    return dataset.subset(torch.arange(n))


@dataclass(frozen=True)
class CheckStage:
    """A named part of a check. When a ``required`` one fails the whole check does: the model cannot be run at all."""

    name: str
    measure: Callable[[Bench], Iterable[Record]]
    required: bool = False


def _audit(bench: Bench) -> Iterator[Record]:
    yield audit_modes(bench.model, bench.probed)


def _normalization(bench: Bench) -> Iterator[Record]:
    yield audit_normalization(bench.model, bench.probed)


def _anatomy(bench: Bench) -> Iterator[Record]:
    yield measure_anatomy(bench.model, image_shape=bench.dataset.shape, name=bench.name)


def _accuracy(bench: Bench) -> Iterator[Record]:
    yield measure_clean_accuracy(bench.model, bench.clean)


def _attacks(bench: Bench) -> Iterator[Record]:
    patient = PGD(steps=bench.budget.steps, restarts=bench.budget.restarts)
    for attack in (FGSM(), patient, SignedSteps(), Noise(draws=5)):
        measurement = _attack(bench, attack)
        yield measurement.record
        if attack is patient:
            yield describe_attack(measurement, bench.attacked)
            yield pick_gallery(measurement, bench.attacked, shown=bench.budget.shown)
            yield pick_samples(measurement, bench.attacked, shown=bench.budget.pictured)


def _attack(bench: Bench, attack: AttackOptions) -> RobustnessMeasurement:
    return measure_robust_accuracy(
        bench.model, bench.attacked, attack=attack, epsilon=EPSILON, seed=bench.seed, clean=bench.known
    )


def _attack_sanity(bench: Bench) -> Iterator[Record]:
    yield measure_attack_sanity(
        bench.model,
        bench.attacked,
        epsilon=EPSILON,
        seed=bench.seed,
        n=bench.budget.doubted,
        queries=bench.budget.queries,
    )


def _epsilon_curve(bench: Bench) -> Iterator[Record]:
    yield measure_epsilon_curve(
        bench.model, bench.attacked, attack=PGD(steps=CURVE_STEPS), seed=bench.seed, clean=bench.known
    )


def _invariance(bench: Bench) -> Iterator[Record]:
    yield measure_invariance(bench.model, bench.probed, seed=bench.seed)


def _input_gradients(bench: Bench) -> Iterator[Record]:
    yield measure_input_gradients(bench.model, bench.probed, n=len(bench.probed), shown=bench.budget.shown)


def _gradient_flow(bench: Bench) -> Iterator[Record]:
    yield measure_gradient_flow(bench.model, bench.probed, n=len(bench.probed))


def _over_time(bench: Bench) -> Iterator[Record]:
    if is_recurrent(bench.model):
        yield measure_gradients_over_time(bench.model, bench.probed, name=bench.name)


def _decay_groups(bench: Bench) -> Iterator[Record]:
    yield measure_decay_groups(bench.model)


def _spectra(bench: Bench) -> Iterator[Record]:
    yield measure_spectra(bench.model)


STAGES: tuple[CheckStage, ...] = (
    CheckStage("mode audit", _audit, required=True),
    CheckStage("normalisation audit", _normalization),
    CheckStage("anatomy", _anatomy),
    CheckStage("clean accuracy", _accuracy, required=True),
    CheckStage("attacks", _attacks),
    CheckStage("attack sanity", _attack_sanity),
    CheckStage("accuracy against epsilon", _epsilon_curve),
    CheckStage("invariance", _invariance),
    CheckStage("input gradients", _input_gradients),
    CheckStage("gradient flow", _gradient_flow),
    CheckStage("gradients over time", _over_time),
    CheckStage("weight-decay groups", _decay_groups),
    CheckStage("singular spectra", _spectra),
)
