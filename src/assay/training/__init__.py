"""Recipes, parameter groups, schedules, and the one training loop."""

from assay.training.recipes import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe"]
