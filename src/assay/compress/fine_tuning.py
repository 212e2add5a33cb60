"""A compressed network learns the original network's answers again."""

from __future__ import annotations

import copy

from torch import nn

from assay.data.dataset import ImageDataset
from assay.training.distillation import Distillation
from assay.training.loop import fit
from assay.training.recipes import Recipe

TEMPERATURE = 4.0


def fine_tune(
    model: nn.Module, original: nn.Module, train: ImageDataset, *, epochs: float, lr: float, seed: int
) -> None:
    """Train ``model``, in place, to answer as ``original`` does to pictures moved and mirrored, whatever their labels.

    Softened, the answers tell more than the labels do: which wrong classes a picture resembles, and how much.
    """
    recipe = Recipe.parse(
        {
            "name": "fine-tuning",
            "epochs": epochs,
            "batch_size": 128,
            "precision": "auto",
            "refresh_batchnorm": 5000,
            "optimizer": {"name": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "triangular", "peak": 0.15, "start": 0.2},
            "augment": {"name": "flip-crop", "padding": max(1, train.shape[1] // 8), "flip": train.shape[0] == 3},
        },
        where="fine-tuning",
    )
    fit(model, train, recipe=recipe, seed=seed, loss=Distillation(copy.deepcopy(original).eval(), TEMPERATURE))
