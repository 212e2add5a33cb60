from __future__ import annotations

import math

import pytest

from assay.data.sequences import adding_problem
from assay.errors import OptionError
from assay.records.recurrence import RemedyComparison, RemedyRun
from assay.tracing.remedies import REMEDIES, compare_remedies, judge_remedies


def test_every_remedy_runs_and_two_comparisons_are_equal() -> None:
    def compare() -> RemedyComparison:
        found = compare_remedies(adding_problem(12), hidden=8, steps=6, batch_size=8)
        runs = tuple(run.model_copy(update={"seconds": 0.0}) for run in found.runs)
        return found.model_copy(update={"runs": runs, "seconds": 0.0})

    first, second = compare(), compare()
    assert first.model_dump_json() == second.model_dump_json()
    assert len(first.runs) == sum(len(remedy.against) for remedy in REMEDIES)
    assert len(first.effects) == len(first.runs) - 2
    again = RemedyComparison.model_validate_json(first.model_dump_json())
    assert again.model_dump_json() == first.model_dump_json()


def test_the_starts_are_what_they_are_called_and_clipping_bounds_what_the_optimizer_gets() -> None:
    chosen = [r for r in REMEDIES if r.name in {"nothing", "clipping by norm, 1", "orthogonal start"}]
    found = compare_remedies(adding_problem(60), remedies=chosen, hidden=16, steps=10, batch_size=8, learning_rate=1e-4)
    runs = {(run.problem, run.remedy): run for run in found.runs}
    assert runs["vanishing", "nothing"].rate_before < 0.8
    assert runs["exploding", "nothing"].rate_before > 1.0
    assert 0.9 < runs["vanishing", "orthogonal start"].rate_before < 1.05
    assert runs["exploding", "clipping by norm, 1"].largest_gradient <= 1.0 + 1e-4
    verdicts = {(e.problem, e.remedy): e.verdict for e in found.effects}
    assert verdicts["vanishing", "orthogonal start"] == "helps"
    assert verdicts["vanishing", "clipping by norm, 1"] == "does not help"


def run(problem: str, remedy: str, **values) -> RemedyRun:
    plain = {"loss": 0.2, "horizon_after": 2.0, "largest_gradient": 100.0, "diverged_at": None}
    return RemedyRun(
        problem=problem, remedy=remedy, cell="rnn", lowest_loss=0.1, rate_before=0.6, rate_after=0.6,
        horizon_before=2.0,
        norms_before=(1.0,) * 50, norms_after=(1.0,) * 50, median_gradient=1.0, seconds=1.0, **{**plain, **values},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "values", "verdict"),
    [
        ("vanishing", {}, "does not help"),
        ("vanishing", {"horizon_after": 4.0}, "helps"),
        ("vanishing", {"horizon_after": math.inf}, "helps"),
        ("vanishing", {"loss": 0.1}, "helps"),
        ("vanishing", {"horizon_after": 0.5}, "makes it worse"),
        ("vanishing", {"diverged_at": 7, "loss": math.inf, "horizon_after": 50.0}, "makes it worse"),
        ("exploding", {"largest_gradient": 10.0}, "helps"),
        ("exploding", {"largest_gradient": 50.0}, "does not help"),
        ("exploding", {"loss": 0.5}, "makes it worse"),
    ],
)
def test_remedies_are_judged_by_the_numbers(problem: str, values: dict, verdict: str) -> None:
    (effect,) = judge_remedies([run(problem, "nothing"), run(problem, "it", **values)])
    assert effect.verdict == verdict


def test_a_prevented_divergence_helps() -> None:
    base = run("exploding", "nothing", diverged_at=3, loss=math.inf)
    (effect,) = judge_remedies([base, run("exploding", "it")])
    assert effect.verdict == "helps"


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(OptionError, match="steps: expected at least 1, got 0"):
        compare_remedies(adding_problem(12), steps=0)
