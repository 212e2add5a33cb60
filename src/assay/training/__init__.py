"""Recipes, parameter groups, schedules, and the one training loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from assay.training.recipes import Recipe, load_recipe, recipe_names

if TYPE_CHECKING:
    from assay.training.classifier import Trained, train_classifier
    from assay.training.loop import fit
    from assay.training.metrics import StepMetrics
    from assay.training.param_groups import audit_optimizer, measure_decay_groups, split_parameters
    from assay.training.sequence_model import train_sequence_model
    from assay.training.step import Distillation

__all__ = [
    "Distillation",
    "Recipe",
    "StepMetrics",
    "Trained",
    "audit_optimizer",
    "fit",
    "load_recipe",
    "measure_decay_groups",
    "recipe_names",
    "split_parameters",
    "train_classifier",
    "train_sequence_model",
]
# Loaded when they are first used: the command line reads recipes without torch.
_HOMES = {
    "Distillation": "step",
    "StepMetrics": "metrics",
    "Trained": "classifier",
    "audit_optimizer": "param_groups",
    "fit": "loop",
    "measure_decay_groups": "param_groups",
    "split_parameters": "param_groups",
    "train_classifier": "classifier",
    "train_sequence_model": "sequence_model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
