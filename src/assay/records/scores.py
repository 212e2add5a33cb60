"""What the verdicts of a check come to: a score for each category, and whether the model is fit for a use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from assay.records.base import Frozen
from assay.records.finding import Category, Status, Verdict

Use = Literal["benign", "shifted", "adversarial"]
Fitness = Literal["fit", "fit with limits", "not fit", "cannot tell"]
USES: tuple[Use, ...] = get_args(Use)
JUDGED_BY_DEFAULT: tuple[Use, ...] = ("benign", "shifted")
# The category that a use asks for besides accuracy; errors of the configuration count for every use.
ASKS_FOR: dict[Use, Category] = {"benign": "accuracy", "shifted": "invariance", "adversarial": "robustness"}
LEARNED = "A101"  # a model that may have learned nothing is fit for no use
CREDIT: dict[Status, float] = {"pass": 1.0, "warn": 0.5, "error": 0.0}


class Score(Frozen):
    """The score of a category by one formula, told apart by its ``version``; None where there is none.

    Version 1 is 100 × (holds + ½ × warnings) ÷ audits that were decided and judge the model. Version 2 halves it where
    one audit fails, and quarters it where several do: it is below 50 then, and below 25. Where an audit that judges the
    model could not run there is no score: what is missing may be what fails.
    """

    category: Category
    formula: Literal["share of audits"] = "share of audits"
    version: Literal[1, 2]
    value: int | None


class FitForUse(Frozen):
    """Whether the model is fit for a use, and the rules because of which it is not, or has limits.

    ``judged`` is False for a use that was not asked for: it is shown.
    """

    use: Use
    judged: bool
    fitness: Fitness
    because: tuple[str, ...] = ()


def score_by_share(verdicts: Sequence[Verdict]) -> int | None:
    """The score of one category's verdicts, version 1. Only exactly 100 and 0 are rounded to themselves."""
    exact = _exact_share(verdicts)
    if exact is None:
        return None
    return int(exact) if exact in {0, 100} else min(99, max(1, round(exact)))


def score_by_failures(verdicts: Sequence[Verdict]) -> int | None:
    """The score of one category's verdicts, version 2; 100 means that every audit was decided and holds."""
    exact = _exact_share(verdicts)
    if exact is None:
        return None
    failing = sum(verdict.scored and verdict.status == "error" for verdict in verdicts)
    exact = exact / (1, 2, 4)[min(failing, 2)]
    undecided = any(verdict.scored and verdict.status == "cannot tell" for verdict in verdicts)
    most = 99 if undecided or exact < 100 else 100
    return 0 if exact == 0 else min(most, max(1, int(exact)))


def _exact_share(verdicts: Sequence[Verdict]) -> float | None:
    credits = [CREDIT[verdict.status] for verdict in verdicts if verdict.scored and verdict.status in CREDIT]
    if not credits or any(verdict.status == "could not run" and verdict.scored for verdict in verdicts):
        return None
    return 100 * sum(credits) / len(credits)


def score_categories(verdicts: Sequence[Verdict]) -> tuple[Score, ...]:
    """Both versions of the score of each category."""
    scores = []
    for category in get_args(Category):
        own = [verdict for verdict in verdicts if verdict.category == category]
        scores.append(Score(category=category, version=1, value=score_by_share(own)))
        scores.append(Score(category=category, version=2, value=score_by_failures(own)))
    return tuple(scores)


def judge_uses(verdicts: Sequence[Verdict], judged: Sequence[Use]) -> tuple[FitForUse, ...]:
    """For each use: not fit, fit with limits, fit, or that it cannot be told.

    *not fit*: an audit of the accuracy, of the category that the use asks for, or of the configuration fails. *cannot
    tell*: none fails, and it is not shown that the model learned anything, or no audit of that category was decided,
    or one that judges its measurement fails. *fit with limits*: an audit warns, cannot tell, could not run, or fails
    and was accepted.
    """
    return tuple(_judge_use(verdicts, use, judged=use in judged) for use in USES)


def _judge_use(verdicts: Sequence[Verdict], use: Use, *, judged: bool) -> FitForUse:
    category = ASKS_FOR[use]
    about = [verdict for verdict in verdicts if verdict.category in {"accuracy", category}]
    own = [verdict for verdict in about if verdict.category == category and verdict.scored]
    failing = [v for v in verdicts if v.scored and v.fails("error") and (v in about or v.category == "configuration")]
    learned = any(verdict.rule == LEARNED and verdict.status == "pass" for verdict in verdicts)
    untold = [] if learned else [verdict for verdict in verdicts if verdict.rule == LEARNED]
    untold += [verdict for verdict in about if not verdict.scored and verdict.fails("error")]
    decided = any(verdict.status in CREDIT for verdict in own)
    limits = [verdict for verdict in about if verdict.status not in {"pass", "not run"}]
    fitness: Fitness = "fit with limits" if limits else "fit"
    because = limits
    if failing:
        fitness, because = "not fit", failing
    elif untold or not learned or not decided:
        fitness, because = "cannot tell", untold or own
    return FitForUse(use=use, judged=judged, fitness=fitness, because=tuple(verdict.rule for verdict in because))
