"""Gradients over depth and over time in one call, and what helps against vanishing and exploding ones."""

from assay.tracing.depth import trace
from assay.tracing.remedies import compare_remedies
from assay.tracing.report import TraceReport
from assay.tracing.sequences import trace_sequences

__all__ = ["TraceReport", "compare_remedies", "trace", "trace_sequences"]
