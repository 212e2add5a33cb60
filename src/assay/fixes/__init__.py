"""Mechanical fixes: applied to a copy of the model, and measured again on the same samples."""

from assay.fixes.run import Fixed, apply_fixes

__all__ = ["Fixed", "apply_fixes"]
