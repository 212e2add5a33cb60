"""Robust accuracy of a model on a data set, and accuracy against epsilon."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.attacks.batch import predictions
from assay.attacks.engine import OnStep
from assay.attacks.engine import attack as run_attack
from assay.attacks.methods import find_attack
from assay.attacks.methods.minimum_norm import MinimumNorm
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackOutcome, AttackResult, join_outcomes, join_results
from assay.attacks.threat import Threat
from assay.data.dataset import MOST_LEVELS, ImageDataset, keep_levels, keep_right, to_unit_range
from assay.data.pictures import to_bytes
from assay.errors import OptionError
from assay.evaluate import Predictions, predict
from assay.models.calls import calling
from assay.records.attack import EpsilonCurve, EpsilonPoint, Norm, Precision, RobustAccuracy
from assay.runtime import generator, pixel_dtype
from assay.runtime.memory import batch_share, run_in_memory
from assay.runtime.sharing import unchanged_models

BLOCK_VALUES = 2**25  # pixel values of a block: 128 MB in float32, and some three times as many during an attack
OnBlock = Callable[[Tensor, AttackResult], None]
CURVE_FIRST = 256  # samples after which it is asked for the first time whether a curve needs more
CURVE_STREAM = 0xC04
EPSILONS = tuple(k / 255 for k in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0))


@dataclass(frozen=True, eq=False)
class RobustnessMeasurement:
    """What :func:`assay.measure_robust_accuracy` returns.

    Attributes:
        record: the numbers; ``accuracy``, ``correct``, ``n``, ``low`` and ``high`` are readable here as well.
        result: every sample's adversarial image, logits, distance and steps.
    """

    record: RobustAccuracy
    result: AttackResult

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from assay.report.notebook import show_attack

        return show_attack(self.record)

    @property
    def accuracy(self) -> float:
        return self.record.accuracy

    @property
    def correct(self) -> int:
        return self.record.correct

    @property
    def n(self) -> int:
        return self.record.n

    @property
    def low(self) -> float:
        return self.record.low

    @property
    def high(self) -> float:
        return self.record.high


@checked
def measure_robust_accuracy(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    attack: str | AttackOptions = "pgd",
    norm: Norm = "linf",
    epsilon: float = 8 / 255,
    seed: int = 0,
    batch_size: int = 256,
    eot_samples: int = 1,
    precision: Precision | str = "auto",
    target_class: int | None = None,
    clean: Predictions | None = None,
    on_step: OnStep | None = None,
) -> RobustnessMeasurement:
    """Accuracy of ``model`` on ``dataset`` after an attack; samples that were wrong before it count as wrong.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: the images and labels; without samples of the target class.
        attack: a name of :func:`assay.list_attacks`, or options such as ``PGD(steps=20)``.
        norm: of the perturbation: linf, l2 or l1.
        epsilon: radius of the ball in pixel units.
        seed: of all random numbers.
        batch_size: images under attack at one time.
        eot_samples: passes averaged for one gradient of a randomised model.
        precision: of the search: float32, bfloat16 or auto; successes are verified in float32.
        target_class: only images that are classified as this class count as broken (a targeted attack).
        clean: the predictions on the clean images, where they are known.
        on_step: called after each step with the method's name, the rows left, and all rows.

    Returns:
        The record (accuracy, 95 % Wilson interval, loss per step) and the adversarial images.

    Raises:
        ModelError: the model cannot take the images, or does not return logits (N, K).
        OptionError: an epsilon below 0, an unknown attack, norm or precision.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> measured = assay.measure_robust_accuracy(model, data, attack="pgd", epsilon=0.1)
        >>> measured.n, measured.low <= measured.accuracy <= measured.high
        (64, True)

    Reference:
        Madry et al. 2018, arXiv:1706.06083, eq. 2.
    """
    results: list[AttackResult] = []
    record, _ = measure_in_blocks(
        model,
        dataset,
        attack=attack,
        norm=norm,
        epsilon=epsilon,
        seed=seed,
        batch_size=batch_size,
        eot_samples=eot_samples,
        precision=precision,
        target_class=target_class,
        clean=clean,
        on_step=on_step,
        on_block=lambda _, result: results.append(result),
    )
    return RobustnessMeasurement(record, join_results(results))


@unchanged_models()
def measure_in_blocks(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    attack: str | AttackOptions = "pgd",
    norm: Norm = "linf",
    epsilon: float = 8 / 255,
    seed: int = 0,
    batch_size: int = 256,
    eot_samples: int = 1,
    precision: Precision | str = "auto",
    target_class: int | None = None,
    clean: Predictions | None = None,
    on_step: OnStep | None = None,
    on_block: OnBlock | None = None,
) -> tuple[RobustAccuracy, AttackOutcome]:
    """:func:`measure_robust_accuracy` without the images, so that memory does not grow with their number.

    ``on_block`` is given the rows of each block, int64 (B,), and its result with the images in it.
    """
    options = find_attack(attack)
    known = predict(model, dataset, batch_size=batch_size) if clean is None else clean
    outcomes: list[AttackOutcome] = []
    rounded = 0
    for rows in split_into_blocks(dataset):
        part = dataset.subset(rows) if len(rows) < len(dataset) else dataset
        run = partial(
            run_attack,
            model,
            **attack_inputs(model, part),
            attack=options,
            norm=norm,
            epsilon=epsilon,
            seed=seed,
            batch_size=batch_size,
            clean_logits=known.logits[rows],
            target_classes=None if target_class is None else torch.full_like(part.labels, target_class),
            eot_samples=eot_samples,
            precision=precision,
            on_step=None if on_step is None else _of_all(on_step, begun=int(rows[-1]) + 1, n=len(dataset)),
        )
        result = run_in_memory(run)
        if target_class is None:
            rounded += count_correct_after_rounding(model, part, result, batch_size)
        if on_block is not None:
            on_block(rows, result)
        outcomes.append(join_outcomes([result]))
        del result
    outcome = join_outcomes(outcomes)
    n, trace, counts = len(dataset), outcome.trace, outcome.counts
    record = RobustAccuracy.of(
        int(outcome.robust.sum()),
        n,
        **attack_fields(options, outcome.threat, seed=seed),
        target=None if target_class is None else dataset.classes[target_class],
        clean_correct=int(outcome.clean_correct.sum()),
        loss_per_step=() if trace is None else tuple(trace.losses.double().mean(dim=0).tolist()),
        accuracy_per_step=() if trace is None else tuple(trace.correct.double().mean(dim=0).tolist()),
        outside_ball=counts.outside_ball,
        unconfirmed=counts.unconfirmed,
        correct_after_rounding=rounded if target_class is None else None,
        mean_distance=float(outcome.distances[outcome.broken].mean()) if bool(outcome.broken.any()) else 0.0,
        forward_equivalents=(counts.forwards + counts.backwards) / n,
        precision=outcome.precision,
        seconds=outcome.seconds,
        per_sample=keep_right(dataset, outcome.robust),
    )
    return record, outcome


def split_into_blocks(dataset: ImageDataset, rows: Tensor | None = None) -> tuple[Tensor, ...]:
    """``rows`` (all, by default) in blocks whose images are attacked at one time, int64 (B,) each."""
    chosen = torch.arange(len(dataset)) if rows is None else rows
    return torch.split(chosen, max(1, int(batch_share() * BLOCK_VALUES) // math.prod(dataset.shape)))


def _of_all(on_step: OnStep, *, begun: int, n: int) -> OnStep:
    """``on_step`` for a block that ends at sample ``begun`` of ``n``: what is left is counted over all samples."""
    return lambda name, left, _: on_step(name, left + n - begun, n)


def attack_inputs(model: nn.Module, dataset: ImageDataset) -> dict[str, Any]:
    """What :func:`assay.attack` takes of a data set: images in [0, 1], labels and ids."""
    return {"images": to_unit_range(dataset.images, pixel_dtype(model)), "labels": dataset.labels, "ids": dataset.ids}


def attack_fields(options: AttackOptions, threat: Threat, *, seed: int) -> dict[str, Any]:
    """The fields of a :class:`RobustAccuracy` that say which attack it was."""
    described = dict(zip(("steps", "step_size", "restarts"), options.describe(threat), strict=True))
    ball = {"norm": threat.norm, "epsilon": threat.epsilon, "constrained": threat.constrained}
    return {"attack": options.name, "seed": seed, **ball, **described}


def count_correct_after_rounding(
    model: nn.Module, dataset: ImageDataset, result: AttackResult, batch_size: int = 256
) -> int:
    """How many samples are correct once each adversarial image is rounded to 8 bits, as a file would store it.

    Only samples that were correct before can be; rounding to the nearest of 256 levels is not projected again. An image
    whose pixels lie on these levels is no other after it, and is not evaluated again.
    """
    fallen = (result.clean_correct & ~result.robust).nonzero()[:, 0]
    rows = fallen[[not _on_levels(result.adversarial[row]) for row in fallen.tolist()]]
    if len(rows) == 0:
        return int(result.robust.sum())
    recovered = 0
    dtype = pixel_dtype(model)
    example = to_unit_range(dataset.images[:2], dtype)
    with calling(model, example, classes=result.clean_logits.shape[1]) as network, torch.no_grad():
        for part in torch.split(rows, batch_size):
            images_u8 = to_bytes(result.adversarial[part])
            logits = network(to_unit_range(images_u8, dtype))
            recovered += int((predictions(logits).cpu() == result.labels[part]).sum())
    return int(result.robust.sum()) + recovered


def _on_levels(image: Tensor) -> bool:
    """Whether every pixel is a multiple of 1/255, up to the rounding of a sum or two in float32."""
    levels = image.double() * 255
    return bool((levels - levels.round()).abs().max() <= 255 * 2.0**-22)


@checked
@unchanged_models()
def measure_epsilon_curve(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    epsilons: Sequence[float] = EPSILONS,
    norm: Norm = "linf",
    attack: str | AttackOptions = "pgd",
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    precision: Precision | str = "auto",
    clean: Predictions | None = None,
    still_open: Callable[[EpsilonCurve], bool] | None = None,
) -> EpsilonCurve:
    """Accuracy at each epsilon, from small to large; a sample broken at one stays broken at every larger one.

    Only samples that are still correct at the smaller epsilons are attacked at the next, so the curve falls by
    construction and costs little more than its last points.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: the images and labels.
        epsilons: in pixel units, in any order; 0 is added.
        norm: of the perturbation: linf, l2 or l1.
        attack: a name of :func:`assay.list_attacks`, or options; ``"min-norm"`` finds each sample's own smallest
            epsilon instead, in one run for all of them.
        steps: the option of that name, where ``attack`` is a name.
        seed: of all random numbers.
        batch_size: images under attack at one time.
        precision: of the search: float32, bfloat16 or auto.
        clean: the predictions on the clean images, where they are known.
        still_open: measure 256 samples in random order first, then twice as many, and so on, for as long as this
            says of the curve so far that more are wanted; all of them by default.

    Returns:
        The accuracy at each epsilon, and the epsilon at which it falls to one half.

    Raises:
        ModelError: the model cannot take the images, or does not return logits (N, K).
        OptionError: an epsilon below 0, an unknown attack, norm or precision.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> curve = assay.measure_epsilon_curve(model, data, epsilons=[0.05, 0.1])
        >>> [point.epsilon for point in curve.points]
        [0.0, 0.05, 0.1]

    Reference:
        Carlini et al. 2019, arXiv:1902.06705, section 4.4; min-norm: Pintor et al. 2021, arXiv:2102.12827.
    """
    options = find_attack(attack, {} if steps is None else {"steps": steps})
    if not options.uses_epsilon:
        raise OptionError("attack", expected="an attack that depends on epsilon", got=repr(options.name))
    ordered = sorted({0.0, *epsilons})
    if any(not 0 <= value < float("inf") for value in ordered):
        raise OptionError("epsilons", expected="finite numbers of at least 0", got=list(epsilons))
    started = time.perf_counter()
    known = predict(model, dataset, batch_size=batch_size) if clean is None else clean

    run_with = partial(run_attack, attack=options, norm=norm, seed=seed, batch_size=batch_size, precision=precision)

    def run(rows: Tensor, epsilon: float) -> AttackOutcome:
        outcomes = []
        for block in split_into_blocks(dataset, rows):
            inputs = attack_inputs(model, dataset.subset(block))
            result = run_in_memory(
                partial(run_with, model, **inputs, epsilon=epsilon, clean_logits=known.logits[block])
            )
            outcomes.append(join_outcomes([result]))
            del result  # its images
        return join_outcomes(outcomes)

    def find_smallest(rows: Tensor) -> Tensor:
        """The least of the epsilons that breaks each, float64: 0 if wrong before, infinite if none does."""
        if isinstance(options, MinimumNorm):
            distances = run(rows, ordered[-1]).distances
            slack = Threat(norm=norm).geometry.slack(dataset.images[0].numel())
            nearest = torch.maximum(distances - slack, distances / 2)  # the least ε whose limit holds the image
            return torch.where(known.correct[rows], nearest, 0.0)
        smallest = torch.where(known.correct[rows], torch.inf, 0.0).double()
        for e in ordered[1:]:
            held = smallest.isinf().nonzero()[:, 0]
            if len(held) > 0:
                smallest[held[~run(rows[held], e).robust]] = e
        return smallest

    def summarize(rows: Tensor, smallest: Tensor) -> EpsilonCurve:
        points = tuple(EpsilonPoint.of(int((smallest > e).sum()), len(rows), epsilon=e) for e in ordered)
        levels = (smallest[:, None] > torch.tensor(ordered, dtype=torch.float64)).sum(dim=1)
        part = dataset if len(rows) == n else dataset.subset(rows)
        return EpsilonCurve(
            attack=options.name,
            norm=norm,
            steps=options.describe(Threat(norm=norm, epsilon=ordered[-1]))[0],
            points=points,
            median_epsilon=crossing(points),
            seconds=time.perf_counter() - started,
            per_sample=keep_levels(part, levels) if len(ordered) <= MOST_LEVELS else None,
        )

    n, size = len(dataset), len(dataset) if still_open is None else CURVE_FIRST
    order = torch.arange(n) if size >= n else torch.randperm(n, generator=generator(seed, CURVE_STREAM))
    chosen = order[:size].sort().values
    smallest = find_smallest(chosen)
    curve = summarize(chosen, smallest)
    while len(chosen) < n and still_open is not None and still_open(curve):
        more = order[len(chosen) : 2 * len(chosen)].sort().values
        smallest = torch.cat([smallest, find_smallest(more)])
        chosen = torch.cat([chosen, more])
        ranks = chosen.argsort()
        chosen, smallest = chosen[ranks], smallest[ranks]
        curve = summarize(chosen, smallest)
    return curve


def crossing(points: Sequence[EpsilonPoint], *, share: float = 0.5) -> float | None:
    """The epsilon at which the curve, straight between its points, falls to ``share``; None when it never does."""
    if points[0].accuracy <= share:
        return points[0].epsilon
    for before, after in pairwise(points):
        if after.accuracy <= share:
            fraction = (before.accuracy - share) / (before.accuracy - after.accuracy)
            return before.epsilon + fraction * (after.epsilon - before.epsilon)
    return None
