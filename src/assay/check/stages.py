"""The stages of a check, in order: each calls the measurements of one package below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import nn

from assay.attacks.examples import AttackedImages, show_samples
from assay.attacks.measure import CURVE_FIRST, measure_epsilon_curve, measure_in_blocks
from assay.attacks.methods.gradient import FGSM, PGD, Noise, SignedSteps
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackOutcome
from assay.attacks.sanity import measure_attack_sanity
from assay.check.attempt import attempt
from assay.check.effort import (
    Effort,
    Passes,
    attack_passes,
    audit_passes,
    clean_passes,
    curve_passes,
    gradient_passes,
    invariance_passes,
    map_passes,
    sanity_passes,
)
from assay.data.dataset import ImageDataset, keep_right
from assay.data.sample_records import keep_metadata, measure_pixel_range
from assay.data.selection import fair_sample
from assay.diagnostics.batchnorm import audit_normalization
from assay.diagnostics.depth import measure_gradient_flow
from assay.diagnostics.invariance import measure_invariance
from assay.diagnostics.maps import measure_saliency_maps
from assay.diagnostics.modes import audit_modes
from assay.diagnostics.preparation import audit_preparation
from assay.diagnostics.saliency import measure_input_gradients
from assay.diagnostics.time import is_recurrent, measure_gradients_over_time
from assay.evaluate import Predictions, predict, predict_shared, summarize
from assay.lowrank.spectrum import measure_spectra
from assay.models.anatomy import measure_anatomy
from assay.records.accuracy import CleanAccuracy, Invariance
from assay.records.anatomy import Anatomy
from assay.records.attack import (
    AdversarialGallery,
    AttackAnatomy,
    AttackSanity,
    EpsilonCurve,
    RobustAccuracy,
    SampleGallery,
)
from assay.records.base import Record
from assay.records.budget import Budget
from assay.records.compression import LayerSpectra
from assay.records.configuration import ModeAudit, NormalizationAudit, PreparationAudit
from assay.records.gradients import GradientFlow, InputGradients
from assay.records.pixels import PixelRange
from assay.records.recurrence import TimeTrace
from assay.records.saliency import SaliencyMaps
from assay.records.training import DecayGroups
from assay.runtime.processes import ALONE, Processes
from assay.training.param_groups import measure_decay_groups
from assay.verdict.invariance import find_open_pairs
from assay.verdict.robustness import curve_is_open

BUDGETS: dict[str, Budget] = {
    "quick": Budget(
        name="quick", clean=2_000, attacked=200, probed=128, steps=10, sample_gallery=200, sanity_samples=32, mapped=8
    ),
    "standard": Budget(name="standard", clean=None, attacked=1_000, probed=256, steps=20),
    "full": Budget(
        name="full",
        clean=None,
        attacked=None,
        probed=1_024,
        steps=50,
        restarts=5,
        gallery=24,
        sanity_samples=200,
        sanity_queries=1_000,
        mapped=128,
    ),
}
EPSILON = 8 / 255
CURVE_STEPS = 10
FEWER = 128  # most samples of an attack that no accuracy is judged by: of signed steps the loss, of noise that it fails
MAPPED_IN_DEPTH = 64  # images of saliency maps from which on weights are drawn anew in three steps
_DETAILS = (AttackAnatomy, AdversarialGallery, SampleGallery)  # taken of PGD alone


@dataclass(frozen=True, eq=False)
class CheckContext:
    """What every stage works on: the model, the samples of the three kinds of stage, the budget and the seed."""

    model: nn.Module
    dataset: ImageDataset
    clean: ImageDataset
    attacked: ImageDataset
    probed: ImageDataset
    budget: Budget
    seed: int
    name: str
    processes: Processes = ALONE

    @classmethod
    def of(
        cls,
        model: nn.Module,
        dataset: ImageDataset,
        *,
        budget: Budget,
        limit: int | None,
        seed: int,
        name: str,
        processes: Processes = ALONE,
    ) -> CheckContext:
        """Take the samples; ``limit`` bounds those that are attacked and probed."""
        most = len(dataset) if limit is None else min(limit, len(dataset))
        return cls(
            model=model,
            dataset=dataset,
            clean=fair_sample(dataset, budget.clean or len(dataset)),
            attacked=fair_sample(dataset, min(most, budget.attacked or most)),
            probed=fair_sample(dataset, min(most, budget.probed)),
            budget=budget,
            seed=seed,
            name=name,
            processes=processes,
        )

    def with_samples(self, field: str, n: int) -> CheckContext:
        """The same with ``n`` in this field of the budget, such as ``attacked``."""
        changed = replace(self, budget=self.budget.model_copy(update={field: n}))
        if field == "clean":
            return replace(changed, clean=fair_sample(self.dataset, n))
        if field == "probed":
            return replace(changed, probed=fair_sample(self.dataset, n))
        return replace(changed, attacked=fair_sample(self.dataset, n)) if field == "attacked" else changed

    def most(self, field: str) -> int:
        """The samples that this field of the budget gives."""
        images = {"clean": self.clean, "probed": self.probed, "mapped": self.probed}.get(field, self.attacked)
        fewer = {"sanity_samples": self.budget.sanity_samples, "mapped": self.budget.mapped}.get(field, len(images))
        return min(len(images), fewer)

    def for_stage(self, stage: CheckStage) -> CheckContext:
        """The same with as many samples as the budget gives this stage."""
        n = self.budget.samples.get(stage.name)
        if n is None or stage.effort is None:
            return self
        return self.with_samples(stage.effort.samples, min(n, self.most(stage.effort.samples)))

    @property
    def measured(self) -> ImageDataset:
        """All samples that any stage takes, in the order of the data set."""
        ids = torch.cat([self.clean.ids, self.attacked.ids, self.probed.ids])
        taken = torch.isin(self.dataset.ids, ids)
        return self.dataset if bool(taken.all()) else self.dataset.subset(taken)

    @cached_property
    def outputs(self) -> Predictions:
        """The predictions on the untouched images of the clean accuracy, by this process alone."""
        return predict(self.model, self.clean)

    def share_outputs(self) -> Predictions:
        """The same by all processes together, of which every one has to call this; ``outputs`` are known then."""
        vars(self)["outputs"] = shared = predict_shared(self.model, self.clean, self.processes)
        return shared

    @cached_property
    def clean_predictions(self) -> Predictions:
        """The predictions on the untouched images that are attacked."""
        known = self.known_predictions(self.attacked)
        if known is not None:
            return known
        return self.outputs if self.attacked is self.clean else predict(self.model, self.attacked)

    def known_predictions(self, data: ImageDataset) -> Predictions | None:
        """Those on ``data`` that the clean accuracy was counted from; None where it did not see all of them."""
        outputs: Predictions | None = vars(self).get("outputs")
        if outputs is None:
            return None
        order = self.clean.ids.argsort()
        places = torch.searchsorted(self.clean.ids[order], data.ids).clamp_max(len(order) - 1)
        rows = order[places]
        if not torch.equal(self.clean.ids[rows], data.ids):
            return None
        return Predictions(outputs.logits[rows], data.labels, outputs.seconds * len(rows) / len(order))


@dataclass(frozen=True)
class CheckStage:
    """A named part of a check, and the classes of the records it ``gives`` when nothing of it fails.

    When a ``required`` one fails the whole check does: the model cannot be run at all. ``effort`` is that of a stage
    which takes fewer or more images as time allows, ``passes`` are about those, in all, of one that does not.
    """

    name: str
    measure: Callable[[CheckContext], Iterable[Record]]
    gives: tuple[type[Record], ...] = ()
    required: bool = False
    effort: Effort | None = None
    passes: Passes = (0, 0)

    def is_left_out(self, budget: Budget) -> bool:
        """Whether the budget gives it no images."""
        return budget.samples.get(self.name) == 0 and not self.required


def _audit(context: CheckContext) -> Iterator[Record]:
    yield audit_modes(context.model, context.probed)


def _normalization(context: CheckContext) -> Iterator[Record]:
    yield audit_normalization(context.model, context.probed)


def _preparation(context: CheckContext) -> Iterator[Record]:
    yield audit_preparation(context.model, context.attacked, clean=context.clean_predictions)


def _anatomy(context: CheckContext) -> Iterator[Record]:
    yield measure_anatomy(context.model, image_shape=context.dataset.shape, name=context.name)


def _accuracy(context: CheckContext) -> Iterator[Record]:
    outputs = context.share_outputs()
    yield summarize(outputs, classes=context.clean.classes, per_sample=keep_right(context.clean, outputs.correct))
    table = keep_metadata(context.measured)
    if table is not None:
        yield table


def _pixels(context: CheckContext) -> Iterator[Record]:
    yield measure_pixel_range(context.dataset)


def _attacks(context: CheckContext) -> Iterator[Record]:
    pgd = PGD(steps=context.budget.steps, restarts=context.budget.restarts)
    # What one attack needs, a backward pass say, another may not: each fails for itself.
    for attack in (FGSM(), pgd, SignedSteps(), Noise(draws=5)):
        # Signed steps go on with broken samples, noise hardly breaks any: what they are there for asks for fewer.
        n = FEWER if isinstance(attack, (SignedSteps, Noise)) else len(context.attacked)
        samples = fair_sample(context.attacked, n)
        measure = partial(_attack, context, attack, samples, in_detail=attack is pgd)
        gives = (RobustAccuracy, *(_DETAILS if attack is pgd else ()))
        yield from attempt(measure, stage="attacks", name=attack.name, gives=gives)


def _attack(
    context: CheckContext, attack: AttackOptions, samples: ImageDataset, *, in_detail: bool
) -> Iterator[Record]:
    images = AttackedImages(samples, shown=context.budget.gallery)
    record, outcome = measure_in_blocks(
        context.model,
        samples,
        attack=attack,
        epsilon=EPSILON,
        seed=context.seed,
        clean=context.clean_predictions if samples is context.attacked else context.known_predictions(samples),
        on_block=images.add if in_detail else None,
    )
    yield record
    if in_detail:
        show = partial(show_samples, dataset=samples, shown=context.budget.sample_gallery)
        details: tuple[tuple[type[Record], Callable[[RobustAccuracy, AttackOutcome], Record]], ...] = (
            (AttackAnatomy, images.describe),
            (AdversarialGallery, images.gallery),
            (SampleGallery, show),
        )
        for kind, take in details:
            name = f"{attack.name}, {kind.__name__}"
            made = partial(_only, partial(take, record, outcome))
            yield from attempt(made, stage="attacks", name=name, gives=(kind,))


def _only(take: Callable[[], Record]) -> Iterator[Record]:
    yield take()


def _attack_sanity(context: CheckContext) -> Iterator[Record]:
    yield measure_attack_sanity(
        context.model,
        context.attacked,
        epsilon=EPSILON,
        seed=context.seed,
        n=context.budget.sanity_samples,
        queries=context.budget.sanity_queries,
    )


def _epsilon_curve(context: CheckContext) -> Iterator[Record]:
    yield measure_epsilon_curve(
        context.model,
        context.attacked,
        attack=PGD(steps=CURVE_STEPS),
        seed=context.seed,
        clean=context.clean_predictions,
        still_open=curve_is_open,
    )


def _invariance(context: CheckContext) -> Iterator[Record]:
    yield measure_invariance(context.model, context.probed, seed=context.seed, still_open=find_open_pairs)


def _input_gradients(context: CheckContext) -> Iterator[Record]:
    yield measure_input_gradients(context.model, context.probed, n=len(context.probed), shown=context.budget.gallery)


def _saliency_maps(context: CheckContext) -> Iterator[Record]:
    n, fewest = context.most("mapped"), 8  # from which on the rule tells something
    depths = 2 if n < MAPPED_IN_DEPTH else 3
    yield measure_saliency_maps(
        context.model, context.probed, n=n, n_randomized=max(fewest, n // 4), depths=depths, seed=context.seed
    )


def _gradient_flow(context: CheckContext) -> Iterator[Record]:
    yield measure_gradient_flow(context.model, context.probed, n=len(context.probed))


def _over_time(context: CheckContext) -> Iterator[Record]:
    if is_recurrent(context.model):
        yield measure_gradients_over_time(context.model, context.probed, name=context.name)


def _decay_groups(context: CheckContext) -> Iterator[Record]:
    yield measure_decay_groups(context.model)


def _spectra(context: CheckContext) -> Iterator[Record]:
    yield measure_spectra(context.model)


_CLEAN = Effort("clean", clean_passes, least=100)
_AUDIT = Effort("probed", audit_passes, weight=0.1, interval=False)
_ATTACKS = Effort("attacked", attack_passes, searches=True)
_SANITY = Effort("sanity_samples", sanity_passes, searches=True, weight=0.1, least=16)
_CURVE = Effort("attacked", curve_passes, searches=True, weight=0.5, enough=CURVE_FIRST)
_INVARIANCE = Effort("probed", invariance_passes, weight=0.2, enough=128)
_PREPARATION = Effort("attacked", audit_passes, weight=0.25, enough=100)
_MAPS = Effort("mapped", map_passes, weight=0.05, least=8, interval=False)
_GRADIENTS = Effort("probed", gradient_passes, weight=0.1, interval=False)

STAGES: tuple[CheckStage, ...] = (
    CheckStage("mode audit", _audit, (ModeAudit,), required=True, passes=(250, 0)),
    CheckStage("normalisation audit", _normalization, (NormalizationAudit,), effort=_AUDIT),
    CheckStage("anatomy", _anatomy, (Anatomy,)),
    CheckStage("clean accuracy", _accuracy, (CleanAccuracy,), required=True, effort=_CLEAN),
    CheckStage("pixel range", _pixels, (PixelRange,)),
    CheckStage("attacks", _attacks, (RobustAccuracy, *_DETAILS), effort=_ATTACKS),
    CheckStage("attack sanity", _attack_sanity, (AttackSanity,), effort=_SANITY),
    CheckStage("accuracy against epsilon", _epsilon_curve, (EpsilonCurve,), effort=_CURVE),
    CheckStage("invariance", _invariance, (Invariance,), effort=_INVARIANCE),
    CheckStage("preparation audit", _preparation, (PreparationAudit,), effort=_PREPARATION),
    CheckStage("input gradients", _input_gradients, (InputGradients,), effort=_GRADIENTS),
    CheckStage("saliency maps", _saliency_maps, (SaliencyMaps,), effort=_MAPS),
    CheckStage("gradient flow", _gradient_flow, (GradientFlow,), effort=_GRADIENTS),
    CheckStage("gradients over time", _over_time, (TimeTrace,)),
    CheckStage("weight-decay groups", _decay_groups, (DecayGroups,)),
    CheckStage("singular spectra", _spectra, (LayerSpectra,)),
)
