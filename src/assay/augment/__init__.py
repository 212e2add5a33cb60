"""The image operations: exact, per sample, fast."""
