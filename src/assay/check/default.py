"""The model a check makes for itself when it is given none."""

from __future__ import annotations

from torch import nn

from assay.data.sources import load_dataset
from assay.records.training import TrainingRun
from assay.training.classifier import train_classifier
from assay.training.metrics import OnStep
from assay.training.recipes import load_recipe


def train_on_digits(*, seed: int = 0, on_step: OnStep | None = None) -> tuple[nn.Module, TrainingRun]:
    """A small network trained on the training split of the built-in digits, in seconds, and how that went."""
    train = load_dataset("digits", split="train")
    trained = train_classifier(train, recipe=load_recipe("digits"), seed=seed, on_step=on_step)
    return trained.model, trained.run
