"""A compression that is to end within a wall time: on how many images candidates and networks are compared."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from assay.attacks.measure import measure_robust_accuracy
from assay.data.dataset import ImageDataset
from assay.data.selection import fair_sample
from assay.evaluate import predict
from assay.records.budget import half_width
from assay.runtime.allocation import TRIAL_SHARE, Cost, Share, allocate, measure_cost

if TYPE_CHECKING:
    from assay.compression.run import CompressionPlan

TUNING_PASSES = 4  # forward passes in time, that an image takes in an epoch of fine-tuning
_LEAST_IMAGES, _LEAST_ATTACKED = 100, 32  # below which an accuracy tells nothing
_SEARCH_SHARE = 0.2  # of a wall time, to evaluate candidates on held-out images


def time_pass(model: nn.Module, dataset: ImageDataset) -> float:
    """Seconds of a forward pass of an image."""
    cost = measure_cost(lambda n: predict(model, fair_sample(dataset, n)), most=len(dataset), seconds=1.0)
    return max(cost.each, 1e-9)


def shorten_search(plan: CompressionPlan, evaluation_seconds: float, *, seconds: float) -> CompressionPlan:
    """Fewer held-out images, where to evaluate candidates on all would take more than its share of the time."""
    most = int(_SEARCH_SHARE * seconds / evaluation_seconds)
    return replace(plan, validation=max(min(plan.validation, most), min(plan.validation, _LEAST_IMAGES)))


def shorten_measurement(
    plan: CompressionPlan, model: nn.Module, test: ImageDataset, pass_seconds: float, *, seconds: float
) -> tuple[CompressionPlan, ImageDataset]:
    """As many test images, and images to attack, as fit into the time: three networks are tested, two attacked."""
    shares = [Share("test", Cost(each=3 * pass_seconds), 1.0, min(_LEAST_IMAGES, len(test)), len(test), required=True)]
    if plan.attack is not None:
        run = partial(measure_robust_accuracy, attack=plan.attack, epsilon=plan.epsilon, seed=plan.seed)
        most = min(plan.robust_images, len(test))
        trial = max(TRIAL_SHARE * seconds, 0.0)
        cost = measure_cost(lambda n: run(model, fair_sample(test, n)), most=most, seconds=trial)
        shares.append(Share("attack", cost.times(2), 1.0, min(_LEAST_ATTACKED, most), most))
    given = allocate(shares, seconds)
    attacked = given.get("attack", 0)
    shorter = replace(plan, attack=plan.attack if attacked else None, robust_images=max(attacked, 1))
    return shorter, fair_sample(test, given["test"])


def describe_measurement(
    plan: CompressionPlan, asked: CompressionPlan, test: ImageDataset, available: ImageDataset
) -> str:
    """What the time left for the comparison: images, and the width of their intervals."""
    text = f"tested on {len(test):,} of {len(available):,} images (±{100 * half_width(len(test)):.1f} points)"
    if asked.attack is None:
        return text
    if plan.attack is None:
        return f"{text}; no time to attack"
    attacked = min(plan.robust_images, len(test))
    return f"{text}; attacked on {attacked:,} of {asked.robust_images:,} (±{100 * half_width(attacked):.1f})"
