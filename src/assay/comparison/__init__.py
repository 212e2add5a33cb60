"""Comparing checks: pairing of samples, tests, intervals. Reads records only; needs no model and no torch."""

from assay.comparison.checkups import compare
from assay.comparison.history import trace_history

__all__ = ["compare", "trace_history"]
