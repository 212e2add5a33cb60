"""The whole job: put one model to the test on one data set, and judge what was measured."""

from assay.check.budget import BUDGETS, Budget
from assay.check.run import run_check

__all__ = ["BUDGETS", "Budget", "run_check"]
