"""Recipes, parameter groups, schedules, and the one training loop."""
