"""Factories of small records, ordinary except for what is given: for the examples of the rules and their tests."""

from __future__ import annotations

import math

from assay.intervals import newcombe
from assay.records.accuracy import (
    ClassAccuracy,
    CleanAccuracy,
    Invariance,
    OperationAccuracy,
    OperationPoint,
    Proportion,
    SequenceAccuracy,
)
from assay.records.attack import AttackSanity, EpsilonCurve, EpsilonPoint, RobustAccuracy, SanityCheck, SanityName
from assay.records.compression import LayerSpectra, LayerSpectrum
from assay.records.configuration import (
    InputConvention,
    ModeAudit,
    NormalizationAudit,
    NormLayer,
    PreparationAudit,
    PreparationVariant,
)
from assay.records.gradients import Curvature, DepthTrace, GradientFlow, InputGradients, LayerGradient, LayerTrace
from assay.records.pixels import PixelRange
from assay.records.quality import (
    ClassSize,
    DuplicatePair,
    Duplicates,
    OddPictures,
    PictureSurvey,
    RelatedAccuracy,
    Relation,
)
from assay.records.recurrence import Decay, StateGradients, TimeTrace
from assay.records.saliency import CheckedMap, RandomizedLayers, SaliencyMaps
from assay.records.training import DecayGroups, ParameterGroup


def clean(correct: int = 900, n: int = 1000, *, dogs: int | None = None, **changes: object) -> CleanAccuracy:
    """Accuracy of a classifier of cats and dogs, half of the n images each; ``dogs`` correct, the rest cats."""
    half = n // 2
    dogs = correct // 2 if dogs is None else dogs
    right = {"cat": correct - dogs, "dog": dogs}
    fields: dict[str, object] = {
        "loss": 0.3,
        "per_class": tuple(ClassAccuracy.of(count, half, name=name) for name, count in right.items()),
        "confusion": ((right["cat"], half - right["cat"]), (half - right["dog"], right["dog"])),
        "expected_calibration_error": 0.02,
        "calibration": (),
        "mean_confidence": 0.92,
        "images_per_second": 1e3,
    }
    return CleanAccuracy.of(correct, n, **(fields | changes))


def attacked(attack: str, correct: int, **changes: object) -> RobustAccuracy:
    """Accuracy after an attack: ``correct`` of 1000, of which 900 were correct before it."""
    fields: dict[str, object] = {
        "attack": attack, "norm": "linf", "epsilon": 8 / 255, "step_size": 2 / 255, "steps": 10, "restarts": 1,
        "seed": 0, "clean_correct": 900, "seconds": 1.0,
    }  # fmt: skip
    return RobustAccuracy.of(correct, 1000, **(fields | changes))


def signed_steps(*losses: float) -> RobustAccuracy:
    """The mean loss before the first signed gradient step and after each."""
    return attacked("signed-steps", 0, loss_per_step=losses, constrained=False)


def curve(levels: float | None, n: int = 1000) -> EpsilonCurve:
    """Accuracy against epsilon under PGD, 90 % without it, half of the images broken at ``levels`` of 255."""
    sizes = (0.0, 8.0) if levels is None else (0.0, levels, 2 * levels, max(8.0, 3 * levels))
    shares = (0.9, 0.6) if levels is None else (0.9, 0.5, 0.1, 0.1)
    points = tuple(
        EpsilonPoint.of(round(share * n), n, epsilon=size / 255) for size, share in zip(sizes, shares, strict=True)
    )
    median = None if levels is None else levels / 255
    return EpsilonCurve(attack="pgd", norm="linf", steps=10, points=points, median_epsilon=median, seconds=1.0)


def sanity(name: SanityName, value: float, detail: str) -> AttackSanity:
    """One sanity check of an attack; it is raised where ``value`` is above 0."""
    checks = (SanityCheck(name=name, value=value, limit=0.0, detail=detail),)
    return AttackSanity(norm="linf", epsilon=8 / 255, n=64, checks=checks, seconds=1.0)


def layer(name: str, gradient: float = 1.0, *, dead: float | None = None, non_finite: int = 0) -> LayerGradient:
    return LayerGradient(
        name=name, type="Linear", depth=0, parameters=4, weight_norm=1.0, weight_gradient=1.0, relative_gradient=1.0,
        activation=1.0, activation_gradient=gradient, dead=dead, non_finite=non_finite,
    )  # fmt: skip


def flow(*layers: LayerGradient, first_non_finite: str | None = None) -> GradientFlow:
    """Gradients over depth; the layers from the input on."""
    return GradientFlow(layers=layers, n=8, loss=1.0, decay_per_layer=None, first_non_finite=first_non_finite)


def input_gradients(zero: int = 0) -> InputGradients:
    """Gradients at 100 images, ``zero`` of them exactly zero."""
    return InputGradients(
        n_right=90, n_wrong=10, median_norm_right=0.1, median_norm_wrong=1.0, quantiles_right=(), quantiles_wrong=(),
        concentration=0.5, zero=zero, non_finite=0, samples=(),
    )  # fmt: skip


def saliency_maps(*, correlation: float = 0.1, gain: float = 0.1) -> SaliencyMaps:
    """One map on 16 images: its mean rank correlation with that of permuted weights, its mean gain by deletion."""
    spread = tuple(0.01 * (-1) ** i for i in range(16))
    depth = RandomizedLayers(layer="conv1", layers=20, correlations=tuple(correlation + each for each in spread))
    return SaliencyMaps(
        n=16, regions=64, orders=4, fractions=(0.0, 1.0), random=(0.9, 0.1), layers=20,
        maps=(
            CheckedMap(
                method="gradient", blank=0, deleted=(0.9, 0.1), gains=tuple(gain + each for each in spread),
                randomized=(depth,),
            ),
        ),
    )  # fmt: skip


def modes(**changes: object) -> ModeAudit:
    """A model with BatchNorm, handed over in evaluation mode."""
    fields: dict[str, object] = {
        "training_flag": False, "modules_in_train_mode": (), "modules_in_eval_mode": ("bn",), "frozen_parameters": 0,
        "train_eval_gap": 0.2, "repeat_gap": 0.0, "batch_gap": 1e-7, "outputs_look_like": "logits",
    }  # fmt: skip
    return ModeAudit.model_validate(fields | changes)


def decay_groups(*missed: str) -> DecayGroups:
    """Two normalisation scales, of which a search for "bn" misses those named."""
    norm = ParameterGroup(role="norm", names=("bn1.weight", "norm.weight"), parameters=8)
    return DecayGroups(groups=(norm,), frozen=0, tied=0, missed_by_name=missed)


def normalization(
    *,
    distance: float = 0.0,
    bgr: int = 60,
    oddities: tuple[str, ...] = (),
    p: float | None = None,
    reestimated_p: float | None = None,
) -> NormalizationAudit:
    """One BatchNorm layer; 60 of 100 images correct as they are, ``bgr`` with the channels reversed."""
    norm = NormLayer(
        name="bn", type="BatchNorm2d", channels=3, distance=distance, mean_shift=0, log_variance_ratio=0,
        batches_tracked=5, oddities=oddities,
    )  # fmt: skip
    conventions = (
        InputConvention.of(60, 100, convention="as is"),
        InputConvention.of(bgr, 100, convention="in BGR", p_value=p),
    )
    return NormalizationAudit(
        n=100, n_statistics=100, layers=(norm,), before=Proportion.of(60, 100), reestimated=None,
        conventions=conventions, stem="conv", stem_mean=0.5, stem_std=0.2, reestimated_p=reestimated_p,
    )  # fmt: skip


def pixels(**changes: object) -> PixelRange:
    """The pixels of a hundred ordinary photographs."""
    fields = {"n": 100, "lowest": 0, "highest": 255, "levels": 256, "median_lowest": 3, "median_highest": 250}
    return PixelRange.model_validate(fields | changes)


def preparation(*, gained: int = 0, lost: int = 2, p: float | None = None) -> PreparationAudit:
    """60 of 100 pictures right as prepared; bicubic makes ``gained`` right and ``lost`` wrong."""
    variant = PreparationVariant.of(
        60 + gained - lost, 100, name="resized bicubic", gained=gained, lost=lost,
        p_value=(1e-4 if gained > 10 else 0.5) if p is None else p,
    )  # fmt: skip
    return PreparationAudit(
        n=100, height=224, width=224, preparation="resize=256,crop=224", source="--prepare", resized=True,
        as_prepared=Proportion.of(60, 100), variants=(variant,),
    )  # fmt: skip


def spectra(*, redundancy: float = 0.1, condition: float = 10.0) -> LayerSpectra:
    one = LayerSpectrum(
        name="fc", type="Linear", rows=4, columns=8, singular_values=(1.0, 0.1), stable_rank=1.0, effective_rank=1.5,
        rank_for_99=2, condition_number=condition,
    )  # fmt: skip
    return LayerSpectra(layers=(one,), redundancy=redundancy)


def invariance(first: int, others: int, *, n: int = 1000, clean: int = 900, gained: int = 0) -> Invariance:
    """Correct of n under two operations at five strengths: ``first`` under Rotate at the lowest, else ``others``."""

    def operation(name: str, counts: tuple[int, ...]) -> OperationAccuracy:
        points = tuple(
            OperationPoint.of(
                count, n, level=level, magnitude_low=1.0 - level, magnitude_high=level - 1.0,
                lost=clean - count + gained, gained=gained,
            )
            for level, count in enumerate(counts, start=1)
        )  # fmt: skip
        mean = sum(point.accuracy for point in points) / len(points)
        return OperationAccuracy(operation=name, unit="°", points=points, mean_accuracy=mean)

    rotate, shear = (operation(name, (c, *[others] * 4)) for name, c in (("Rotate", first), ("ShearX", clean)))
    return Invariance(
        clean=Proportion.of(clean, n), operations=(rotate, shear),
        mean_accuracy=(rotate.mean_accuracy + shear.mean_accuracy) / 2, worst_operation="Rotate",
        worst_accuracy=rotate.mean_accuracy, seed=0, seconds=1.0,
    )  # fmt: skip


def time_trace(rate: float = 0.99, *, reverse_zero: int = 0, non_finite: int = 0) -> TimeTrace:
    """A bidirectional recurrence on 50 steps whose gradient changes by ``rate`` with each step back."""
    norms = tuple(rate ** (49 - t) for t in range(50))

    def decay(rate: float) -> Decay:
        return Decay(
            law="exponential", rate=rate, exponent=1, r2_exponential=1, r2_polynomial=0, points=50,
            horizon=-1 / math.log(rate) if rate < 1 else math.inf,
        )  # fmt: skip

    forward = StateGradients(name="l0", part="hidden", norms=norms, decay=decay(rate), non_finite=non_finite)
    backward = StateGradients(
        name="l0.reverse", part="hidden", reverse=True, norms=norms, decay=decay(0.9), zero=reverse_zero
    )
    return TimeTrace(label="rnn", length=50, n=4, loss=1.0, head="l0", states=(forward, backward))


def depth_trace(*, update: float = 1e-3, non_finite: int = 0) -> DepthTrace:
    """One layer at one training step that changed it by ``update`` of its norm."""
    fc = LayerTrace(
        name="fc", type="Linear", depth=0, activation=(1.0,), gradient=(1.0,), weight_gradient=(1.0,), update=(update,)
    )
    first = "fc at step 1" if non_finite else None
    return DepthTrace(label="mlp", total=1, steps=(1,), layers=(fc,), non_finite=non_finite, first_non_finite=first)


def curvature(largest: float, *, learning_rate: float | None = None) -> Curvature:
    """A Hessian whose largest eigenvalue is given."""
    return Curvature(
        n=10, parameters=3, eigenvalues=(largest,), smallest=0, residual=0, iterations=3, trace=1, trace_error=0,
        critical_learning_rate=2 / largest, learning_rate=learning_rate,
    )  # fmt: skip


def sequence_accuracy(loss: float) -> SequenceAccuracy:
    """The adding problem, whose best prediction without memory has a squared error of 1/6."""
    return SequenceAccuracy.of(
        3, 10, task="adding", length=9, loss=loss, loss_unit="squared error", baseline=1 / 6,
        baseline_is="always answering 1", right_is="within 0.1",
    )  # fmt: skip


def duplicates(near: int, *, n: int = 1000, against: str = "", contradictory: int = 0) -> Duplicates:
    """``near`` of n pictures have a near duplicate, in the same set or in another."""
    pairs = tuple(
        DuplicatePair(
            first=place, second=n + place, first_name=f"test/{place}", second_name=f"train/{place}", first_label="cat",
            second_label="dog" if place < contradictory else "cat", match="near", score=0.97, relation=Relation(),
        )
        for place in range(near)
    )  # fmt: skip
    return Duplicates(
        data="pets (test)", against=against, n=n, n_against=n if against else 0, exact=0, near=near, similar=0,
        threshold=0.93, contradictory=contradictory, pairs=pairs, related=tuple(range(near)), seconds=1.0,
    )  # fmt: skip


def related(correct: int, n: int, *, others: int = 900, n_others: int = 1000) -> RelatedAccuracy:
    """``correct`` of the n pictures that have a duplicate in the training images, and 900 of 1000 others."""
    low, high = newcombe(others, n_others, correct, n)
    return RelatedAccuracy(
        against="pets (train)", every=Proportion.of(correct + others, n + n_others),
        with_duplicate=Proportion.of(correct, n), without_duplicate=Proportion.of(others, n_others), low=low, high=high,
    )  # fmt: skip


def survey(dark: int, *, n: int = 1000, rarest: int = 500) -> PictureSurvey:
    """A set of n pictures of cats and dogs of which some are dark; ``rarest`` of them show dogs."""
    odd = (OddPictures(oddity="dark", meaning="a mean below 20 of 255", n=dark, examples=("test/0",)[:dark]),)
    return PictureSurvey(
        data="pets (test)", n=n, channels=3, height=32, width=32, unreadable=(), odd=odd, n_odd=dark,
        classes=(ClassSize(name="cat", n=n - rarest), ClassSize(name="dog", n=rarest)),
    )  # fmt: skip
