"""Recipes, parameter groups, schedules, and the one training loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.training.classifier import Trained as Trained
    from assay.training.classifier import train_classifier as train_classifier
    from assay.training.loop import fit as fit
    from assay.training.metrics import StepMetrics as StepMetrics
    from assay.training.param_groups import audit_optimizer as audit_optimizer
    from assay.training.param_groups import measure_decay_groups as measure_decay_groups
    from assay.training.param_groups import split_parameters as split_parameters
    from assay.training.recipes import Recipe as Recipe
    from assay.training.recipes import load_recipe as load_recipe
    from assay.training.recipes import recipe_names as recipe_names
    from assay.training.sequence_model import train_sequence_model as train_sequence_model
    from assay.training.step import Distillation as Distillation

# Loaded when they are first used: the command line reads recipes without torch.
_HOMES = {
    "Distillation": "step",
    "Recipe": "recipes",
    "StepMetrics": "metrics",
    "Trained": "classifier",
    "audit_optimizer": "param_groups",
    "fit": "loop",
    "load_recipe": "recipes",
    "measure_decay_groups": "param_groups",
    "recipe_names": "recipes",
    "split_parameters": "param_groups",
    "train_classifier": "classifier",
    "train_sequence_model": "sequence_model",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
