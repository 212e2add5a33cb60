"""Random weights, training images, permuted labels: named before any number is read."""

from __future__ import annotations

import random

import pytest

from assay.records.accuracy import ClassAccuracy, CleanAccuracy
from assay.records.provenance import Provenance
from assay.report.summary import nothing_to_test, warning
from assay.verdict import Evidence, find_rule, judge


def confused(rows: list[list[int]]) -> CleanAccuracy:
    """The accuracy that a confusion matrix shows."""
    right = [row[place] for place, row in enumerate(rows)]
    per_class = tuple(ClassAccuracy.of(r, sum(row), name=f"c{k}") for k, (r, row) in enumerate(zip(right, rows)))  # noqa: B905
    return CleanAccuracy.of(
        sum(right), sum(map(sum, rows)), loss=1.0, per_class=per_class, confusion=tuple(map(tuple, rows)),
        expected_calibration_error=0.02, calibration=(), mean_confidence=0.9, images_per_second=1.0,
    )  # fmt: skip


def predicted_as(order: list[int], *, n: int = 50, right: int = 46) -> list[list[int]]:
    """Class i mostly predicted as ``order[i]``, the rest spread."""
    classes = len(order)
    rows = [[0] * classes for _ in order]
    for true, most in enumerate(order):
        rows[true][most] += right
        for k in range(n - right):
            rows[true][(most + 1 + k) % classes] += 1
    return rows


SHUFFLED = list(range(100))
random.Random(0).shuffle(SHUFFLED)


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (list(range(10)), "pass"),
        ([1, 0], "error"),
        ([1, 0, *range(2, 10)], "error"),  # two labels exchanged
        ([1, 2, 0, 3, 4], "error"),  # a cycle of three
        ([9, *range(9)], "error"),  # all moved by one
        (SHUFFLED, "error"),
        ([1, 1, 2, 3, 4], "pass"),  # one class taken for another: a mistake, no permutation
        ([0] * 10, "not run"),  # a constant answer
    ],
    ids=["in order", "two of two", "two of ten", "cycle", "moved by one", "100 classes", "one mistaken", "constant"],
)
def test_a_confusion_matrix_that_is_a_permutation_is_named(order: list[int], status: str) -> None:
    verdict = find_rule("A106").verdict(Evidence([confused(predicted_as(order))]))
    assert verdict.status == status, verdict.measured
    if status == "error":
        assert verdict.statement.startswith("Labels permuted: 9")
        assert "% right where" in verdict.statement
        assert "is called c" in verdict.where


def test_two_of_a_few_images_are_no_permutation() -> None:
    assert find_rule("A106").verdict(Evidence([confused([[0, 2], [2, 0]])])).status != "error"


def test_an_accuracy_far_below_guessing_is_named() -> None:
    rows = [[0 if i == j else 20 for j in range(10)] for i in range(10)]
    verdict = find_rule("A106").verdict(Evidence([confused(rows)]))
    assert verdict.status == "error"
    assert verdict.statement == "Labels permuted: 0\xa0% (n = 1,800), far below guessing, 10.0\xa0%"


@pytest.mark.parametrize(
    ("record", "rule", "words"),
    [
        (Provenance(random="all weights"), "A107", "Random weights"),
        (Provenance(random="the last layer"), "A107", "Random weights"),
        (
            Provenance(random="none", trained_on="cifar10", tested_on_training=True),
            "A108",
            "Tested on its training images",
        ),
    ],
)
def test_what_takes_the_meaning_of_the_numbers_away_stands_over_them(record: Provenance, rule: str, words: str) -> None:
    verdicts = judge([record, confused(predicted_as(list(range(4))))])
    assert {verdict.rule: verdict.status for verdict in verdicts}[rule] == "error"
    assert nothing_to_test(verdicts) == (words,)
    assert warning(verdicts) == ("error", f"{words}: no number here tells how good the model is")


def test_of_a_module_of_your_own_nothing_is_claimed() -> None:
    verdicts = {verdict.rule: verdict.status for verdict in judge([Provenance(random="unknown")])}
    assert (verdicts["A107"], verdicts["A108"]) == ("not run", "not run")
    assert warning(judge([])) is None
