"""Robust accuracy of a model on a data set, and accuracy against epsilon."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from assay.attacks.engine import OnStep, attack
from assay.attacks.methods import find_attack
from assay.attacks.methods.minimum_norm import MinimumNorm
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackResult
from assay.attacks.threat import Threat
from assay.data.dataset import MOST_LEVELS, ImageDataset, keep_levels, keep_right, to_unit_range
from assay.errors import OptionError
from assay.evaluate import Predictions, predict, preferred_layout
from assay.records.attack import EpsilonCurve, EpsilonPoint, Norm, Precision, RobustAccuracy
from assay.records.samples import SampleBits
from assay.runtime import device_of, dtype_of, pixel_dtype, preserved

EPSILONS = tuple(k / 255 for k in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0))


@dataclass(frozen=True, eq=False)
class RobustnessMeasurement:
    """``record`` holds the numbers, ``result`` every sample's images, logits, distance, steps and attack."""

    record: RobustAccuracy
    result: AttackResult


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
    """Accuracy of ``model`` on ``dataset`` after ``attack``; samples wrong before it count as wrong.

    ``clean`` are the predictions on the untouched images where they are known already; ``eot_samples`` passes make one
    gradient (for randomised models); ``precision`` is that of the search. With a
    ``target_class`` only images turned into that class count as broken, and none of ``dataset`` may be of it. The
    model is left as found.
    Raises what :func:`assay.attacks.engine.attack` raises.
    """
    options = find_attack(attack)
    result = _attack_dataset(
        model,
        dataset,
        options=options,
        norm=norm,
        epsilon=epsilon,
        seed=seed,
        batch_size=batch_size,
        eot_samples=eot_samples,
        precision=precision,
        target_class=target_class,
        clean=clean,
        on_step=on_step,
    )
    rounded = (
        count_correct_after_rounding(model, dataset, result, batch_size=batch_size) if target_class is None else None
    )
    record = summarize_attack(
        result,
        options=options,
        seed=seed,
        correct_after_rounding=rounded,
        per_sample=keep_right(dataset, result.robust),
    )
    named = None if target_class is None else dataset.classes[target_class]
    return RobustnessMeasurement(record.model_copy(update={"target": named}), result)


def _attack_dataset(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    options: AttackOptions,
    norm: Norm,
    epsilon: float | Tensor,
    seed: int,
    batch_size: int,
    clean: Predictions | None,
    on_step: OnStep | None,
    eot_samples: int = 1,
    precision: Precision | str = "auto",
    target_class: int | None = None,
) -> AttackResult:
    known = predict(model, dataset, batch_size=batch_size) if clean is None else clean
    return attack(
        model,
        to_unit_range(dataset.images, pixel_dtype(model)),
        dataset.labels,
        attack=options,
        norm=norm,
        epsilon=epsilon,
        seed=seed,
        batch_size=batch_size,
        ids=dataset.ids,
        clean_logits=known.logits,
        target_classes=None if target_class is None else torch.full_like(dataset.labels, target_class),
        eot_samples=eot_samples,
        precision=precision,
        on_step=on_step,
    )


def summarize_attack(
    result: AttackResult,
    *,
    options: AttackOptions,
    seed: int,
    correct_after_rounding: int | None = None,
    per_sample: SampleBits | None = None,
) -> RobustAccuracy:
    """Count an outcome into a :class:`RobustAccuracy`."""
    robust, n = result.robust, len(result.labels)
    steps, step_size, restarts = options.describe(result.threat)
    trace = result.trace
    return RobustAccuracy.of(
        int(robust.sum()),
        n,
        attack=options.name,
        norm=result.threat.norm,
        epsilon=result.threat.epsilon,
        step_size=step_size,
        steps=steps,
        restarts=restarts,
        seed=seed,
        constrained=result.threat.constrained,
        clean_correct=int(result.clean_correct.sum()),
        loss_per_step=() if trace is None else tuple(trace.losses.double().mean(dim=0).tolist()),
        accuracy_per_step=() if trace is None else tuple(trace.correct.double().mean(dim=0).tolist()),
        outside_ball=result.counts.outside_ball,
        unconfirmed=result.counts.unconfirmed,
        correct_after_rounding=correct_after_rounding,
        mean_distance=float(result.distances[result.broken].mean()) if bool(result.broken.any()) else 0.0,
        forward_equivalents=(result.counts.forwards + result.counts.backwards) / n,
        precision=result.precision,
        seconds=result.seconds,
        per_sample=per_sample,
    )


def count_correct_after_rounding(
    model: nn.Module, dataset: ImageDataset, result: AttackResult, *, batch_size: int = 256
) -> int:
    """How many samples are right once each adversarial image is rounded to 8 bits, as a file would store it.

    Only samples that were right before can be right; rounding to the nearest of 256 levels is not projected again.
    """
    device, dtype = device_of(model), dtype_of(model)
    rows = (result.clean_correct & ~result.robust).nonzero()[:, 0]
    recovered = 0
    with preserved(model, training=False), torch.inference_mode():
        layout = preferred_layout(model, dataset)
        for part in torch.split(rows, batch_size):
            bytes_ = result.adversarial[part].clamp(0, 1).mul(255).round().to(torch.uint8)
            images = to_unit_range(bytes_.to(device), dtype).contiguous(memory_format=layout)
            recovered += int((model(images).argmax(dim=1).cpu() == result.labels[part]).sum())
    return int(result.robust.sum()) + recovered


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
) -> EpsilonCurve:
    """Accuracy at each epsilon, from small to large; a sample broken at one stays broken at every larger one.

    Only samples that withstood the smaller epsilons are attacked at the next, so the curve falls by construction and
    costs little more than its last points. ``attack="min-norm"`` finds each sample's own smallest epsilon instead, in
    one run for all of them. ``steps`` sets the option of that name of a preset given by name. A 0 is
    added in front when ``epsilons`` has none.
    """
    options = find_attack(attack, {} if steps is None else {"steps": steps})
    ordered = sorted({0.0, *epsilons})
    if any(not 0 <= value < float("inf") for value in ordered):
        raise OptionError("epsilons", expected="finite numbers of at least 0", got=list(epsilons))
    started = time.perf_counter()
    known = predict(model, dataset, batch_size=batch_size) if clean is None else clean
    search = _search_nearest if isinstance(options, MinimumNorm) else _climb
    minimal = search(
        model,
        dataset,
        known,
        options=options,
        epsilons=ordered,
        norm=norm,
        seed=seed,
        batch_size=batch_size,
        precision=precision,
    )
    points = tuple(EpsilonPoint.of(int((minimal > e).sum()), len(dataset), epsilon=e) for e in ordered)
    held = (minimal[:, None] > torch.tensor(ordered, dtype=torch.float64)).sum(dim=1)
    return EpsilonCurve(
        attack=options.name,
        norm=norm,
        steps=options.describe(Threat(norm=norm, epsilon=ordered[-1]))[0],
        points=points,
        median_epsilon=crossing(points),
        seconds=time.perf_counter() - started,
        per_sample=keep_levels(dataset, held) if len(ordered) <= MOST_LEVELS else None,
    )


def crossing(points: Sequence[EpsilonPoint], *, share: float = 0.5) -> float | None:
    """The epsilon at which the curve, straight between its points, falls to ``share``; None when it never does."""
    if points[0].accuracy <= share:
        return points[0].epsilon
    for before, after in pairwise(points):
        if after.accuracy <= share:
            fallen = (before.accuracy - share) / (before.accuracy - after.accuracy)
            return before.epsilon + fallen * (after.epsilon - before.epsilon)
    return None


def _climb(
    model: nn.Module,
    dataset: ImageDataset,
    known: Predictions,
    *,
    options: AttackOptions,
    epsilons: Sequence[float],
    norm: Norm,
    seed: int,
    batch_size: int,
    precision: Precision | str,
) -> Tensor:
    """float64 (N,): the smallest of ``epsilons`` at which each sample broke, 0 for one wrong before, else infinite."""
    minimal = torch.where(known.correct, torch.inf, 0.0).double()
    for epsilon in epsilons[1:]:
        rows = minimal.isinf().nonzero()[:, 0]
        if len(rows) == 0:
            break
        result = _attack_dataset(
            model,
            dataset.subset(rows),
            options=options,
            norm=norm,
            epsilon=epsilon,
            seed=seed,
            batch_size=batch_size,
            precision=precision,
            clean=Predictions(known.logits[rows], known.labels[rows], 0.0),
            on_step=None,
        )
        minimal[rows[~result.robust]] = epsilon
    return minimal


def _search_nearest(
    model: nn.Module,
    dataset: ImageDataset,
    known: Predictions,
    *,
    options: AttackOptions,
    epsilons: Sequence[float],
    norm: Norm,
    seed: int,
    batch_size: int,
    precision: Precision | str,
) -> Tensor:
    """float64 (N,): the distance of the nearest adversarial image found, from one run for every epsilon."""
    result = _attack_dataset(
        model,
        dataset,
        options=options,
        norm=norm,
        epsilon=epsilons[-1],
        seed=seed,
        batch_size=batch_size,
        precision=precision,
        clean=known,
        on_step=None,
    )
    slack = Threat(norm=norm).geometry.slack(dataset.images[0].numel())
    return torch.where(known.correct, (result.distances - slack).clamp_min(0.0), 0.0)
