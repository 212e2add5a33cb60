"""The budgets of a check, as a choice on the command line."""

from __future__ import annotations

from enum import StrEnum


class BudgetName(StrEnum):
    """How much work a check may spend."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"
