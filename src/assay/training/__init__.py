"""Recipes, parameter groups, schedules, and the one training loop."""

from assay.training.classifier import Trained, train_classifier
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.param_groups import audit_optimizer, measure_decay_groups, split_parameters
from assay.training.recipes import Recipe, load_recipe, recipe_names
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
