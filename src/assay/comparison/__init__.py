"""Holding checks against one another: pairing, tests, intervals. Reads records only; needs no model and no torch."""

from assay.comparison.compare import compare_checkups
from assay.comparison.history import trace_history

__all__ = ["compare_checkups", "trace_history"]
