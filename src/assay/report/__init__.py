"""Renderers: records and verdicts in, a page, a text or a machine-readable file out. They compute nothing."""
