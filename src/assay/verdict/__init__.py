"""Rules: records in, verdicts out."""

from assay.verdict.catalogue import RULES, find_rule, judge
from assay.verdict.rule import Evidence, Outcome, Rule

__all__ = ["RULES", "Evidence", "Outcome", "Rule", "find_rule", "judge"]
