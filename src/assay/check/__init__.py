"""The whole job: put one model to the test on one data set and judge the records, or hold several against the first."""

from assay.check.model_pairs import compare_models
from assay.check.predictions import check_predictions
from assay.check.run import run_check
from assay.check.stages import BUDGETS
from assay.records.budget import Budget

__all__ = ["BUDGETS", "Budget", "check_predictions", "compare_models", "run_check"]
