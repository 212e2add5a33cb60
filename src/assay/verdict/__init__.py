"""Rules: records in, verdicts out."""
