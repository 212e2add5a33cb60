"""The whole job: put one model to the test on one data set, and judge what was measured."""

from assay.check.predictions import check_predictions
from assay.check.run import run_check
from assay.check.stages import BUDGETS, Budget

__all__ = ["BUDGETS", "Budget", "check_predictions", "run_check"]
