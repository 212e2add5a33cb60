"""From a recipe and data to a trained classifier: build, initialise from the data, fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.models.architectures import build
from assay.records.training import TrainingRun
from assay.runtime import choose_device, generator
from assay.runtime.processes import ALONE, Processes
from assay.training.loop import fit
from assay.training.metrics import OnStep
from assay.training.objective import Perturb
from assay.training.recipes import Recipe

SAMPLE_STREAM = 0x5A3
SAMPLE = 500  # images that the first layer is computed from: half a million patches at 32×32


@runtime_checkable
class InitializesFromData(Protocol):
    """A model whose first layers are computed from training images."""

    def initialize_from(self, images: Tensor) -> None:
        """``images`` float (N, C, H, W) in [0, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained ``model`` in evaluation mode, and how it came to be."""

    model: nn.Module
    run: TrainingRun


def train_classifier(
    train: ImageDataset,
    *,
    recipe: Recipe,
    validation: ImageDataset | None = None,
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
    perturb: Perturb | None = None,
    on_step: OnStep | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    processes: Processes = ALONE,
) -> Trained:
    """Build the recipe's network for ``train`` and :func:`~assay.training.loop.fit` it; see there for the options."""
    model = build_for(recipe, train, seed=seed).to(choose_device(device))
    run = fit(
        model,
        train,
        recipe=recipe,
        validation=validation,
        seed=seed,
        out=out,
        perturb=perturb,
        on_step=on_step,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        processes=processes,
        architecture=recipe.model,
    )
    return Trained(model, run)


def build_for(recipe: Recipe, train: ImageDataset, *, seed: int) -> nn.Module:
    """The recipe's network with the data's classes, shape, mean and standard deviation, and its weights from ``seed``.

    Raises :class:`ModelError` for an unknown architecture or images it cannot take, :class:`OptionError` for a wrong
    ``model_options``.
    """
    model = build(
        recipe.model,
        classes=len(train.classes),
        image_shape=train.shape,
        normalization=measure_normalization(train),
        options=recipe.model_options,
        seed=seed,
    )
    if isinstance(model, InitializesFromData):
        chosen = torch.randperm(len(train), generator=generator(seed, SAMPLE_STREAM))[:SAMPLE]
        model.initialize_from(to_unit_range(train.images[chosen]))
    return model


def measure_normalization(dataset: ImageDataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel over all pixels, in [0, 1] units.

    From integer histograms, so exact to rounding however large the set. A channel that never varies gets 1.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    counted = torch.zeros(dataset.shape[0], 256, dtype=torch.float64)
    for batch in dataset.batches(SAMPLE):  # a large set is not all in memory
        for channel, counts in enumerate(counted):
            counts += torch.bincount(batch.images[:, channel].flatten(), minlength=256)
    for counts in counted:
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        stds.append(variance**0.5 or 1.0)
    return tuple(means), tuple(stds)
