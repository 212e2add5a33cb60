"""Probes that look inside a model and leave it as they found it."""
