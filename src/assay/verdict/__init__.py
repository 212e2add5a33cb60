"""Rules: records in, verdicts out."""

from assay.verdict.catalogue import RULES, find_rule, judge
from assay.verdict.rule import Evidence, Rule, RuleExamples, RuleResult

__all__ = ["RULES", "Evidence", "Rule", "RuleExamples", "RuleResult", "find_rule", "judge"]
