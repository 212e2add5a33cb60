"""Gradients over depth and over time, in one call."""
