"""A status is given where its interval allows it: error rates on the threshold, and models that learned nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from assay.records.accuracy import (
    CalibrationBin,
    ClassAccuracy,
    CleanAccuracy,
    Invariance,
    OperationAccuracy,
    OperationPoint,
    Proportion,
)
from assay.records.attack import EpsilonCurve, EpsilonPoint, RobustAccuracy
from assay.records.base import Record
from assay.verdict import Evidence, find_rule, judge
from assay.verdict.examples import attacked, sanity

SIDE = 0.025
RUNS = 1000
NOISE = 3 * math.sqrt(SIDE * (1 - SIDE) / RUNS)  # of a simulated rate, three standard errors


def status(rule: str, *records: Record) -> str:
    return find_rule(rule).verdict(Evidence(records)).status


def clean_of(counts: list[tuple[int, int]], **changes: object) -> CleanAccuracy:
    """The accuracy of a model with (correct, n) images of each class."""
    fields: dict[str, object] = {
        "loss": 1.0, "confusion": (), "expected_calibration_error": 0.02, "calibration": (), "mean_confidence": 0.5,
        "images_per_second": 1e3,
        "per_class": tuple(ClassAccuracy.of(c, n, name=f"class {k}") for k, (c, n) in enumerate(counts)),
    }  # fmt: skip
    return CleanAccuracy.of(sum(c for c, _ in counts), sum(n for _, n in counts), **(fields | changes))


def robust_of(correct: int, before: int, n: int) -> RobustAccuracy:
    return RobustAccuracy.of(
        correct, n, attack="pgd", norm="linf", epsilon=8 / 255, step_size=2 / 255, steps=10, restarts=1, seed=0,
        clean_correct=before, seconds=1.0,
    )  # fmt: skip


def curve_of(correct: int, before: int) -> EpsilonCurve:
    """``correct`` of ``before`` left at 2/255, all of them at 1/255."""
    points = tuple(
        EpsilonPoint.of(count, before, epsilon=size / 255) for size, count in ((0, before), (1, before), (2, correct))
    )
    return EpsilonCurve(attack="pgd", norm="linf", steps=10, points=points, median_epsilon=None, seconds=1.0)


def one_operation(clean: int, n: int, *, lost: int, gained: int, mean: float, operations: int = 1) -> Invariance:
    points = tuple(
        OperationPoint.of(
            clean - lost + gained, n, level=level, magnitude_low=-1, magnitude_high=1, lost=lost, gained=gained
        )
        for level in (1, 2)
    )
    each = OperationAccuracy(operation="Rotate", unit="°", points=points, mean_accuracy=mean)
    return Invariance(
        clean=Proportion.of(clean, n), operations=(each,) * operations, mean_accuracy=mean, worst_operation="Rotate",
        worst_accuracy=mean, seed=0, seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("n", [20, 100, 1000])
@pytest.mark.parametrize(
    ("rule", "truth", "make", "side"),
    [
        ("A101", 0.1, lambda k, n: clean_of([(k, n)], per_class=tenths(n)), {"pass"}),
        ("A101", 0.19, lambda k, n: clean_of([(k, n)], per_class=tenths(n)), {"error"}),
        ("A202", 0.75, lambda k, n: robust_of(k, n, 2 * n), {"pass"}),
        ("A202", 0.75, lambda k, n: robust_of(k, n, 2 * n), {"warn", "error"}),
        ("A202", 0.50, lambda k, n: robust_of(k, n, 2 * n), {"error"}),
        ("A203", 0.50, curve_of, {"pass"}),
        ("A203", 0.50, curve_of, {"warn", "error"}),
    ],
)
def test_a_share_on_the_threshold_is_decided_in_at_most_2_5_percent(
    rule: str, truth: float, make: Callable[[int, int], Record], side: set[str], n: int
) -> None:
    """Summed over all outcomes: no simulation is needed."""
    decided = [k for k in range(n + 1) if status(rule, make(k, n)) in side]
    assert sum(binom.pmf(k, n, truth) for k in decided) <= SIDE


def tenths(n: int) -> tuple[ClassAccuracy, ...]:
    """The commonest class has a tenth of ``n`` images, as near as can be below it."""
    return (ClassAccuracy.of(0, n // 10, name="commonest"),)


@pytest.mark.parametrize("per_class", [16, 100, 500])
def test_a_class_on_the_threshold_is_decided_in_at_most_2_5_percent(per_class: int) -> None:
    """Two and ten classes, the mean at 80 %, one class 15 points below the mean."""
    random = np.random.default_rng(0)
    for classes in (2, 10):
        truth = np.full(classes, 0.8 + 0.15 / (classes - 1))
        truth[0] = 0.65
        drawn = random.binomial(per_class, truth, size=(RUNS, classes))
        statuses = [status("A102", clean_of([(int(k), per_class) for k in run])) for run in drawn]
        assert statuses.count("pass") / RUNS <= SIDE + NOISE
        assert (statuses.count("warn") + statuses.count("error")) / RUNS <= SIDE + NOISE


@pytest.mark.parametrize("n", [50, 300, 2000])
@pytest.mark.parametrize("bins", [1, 15])
def test_a_calibration_on_the_threshold_is_decided_in_at_most_2_5_percent(n: int, bins: int) -> None:
    random = np.random.default_rng(1)
    confidence = np.linspace(0.55, 0.95, bins) if bins > 1 else np.array([0.9])
    outcomes = []
    for _ in range(RUNS):
        sizes = random.multinomial(n, np.full(bins, 1 / bins))
        right = random.binomial(sizes, confidence - 0.05)
        accuracy = right / np.maximum(sizes, 1)
        error = float(np.sum(sizes * abs(accuracy - confidence)) / n)
        rows = tuple(
            CalibrationBin(low=0, high=1, n=int(size), confidence=float(c), accuracy=float(a))
            for size, c, a in zip(sizes, confidence, accuracy, strict=True)
        )
        record = clean_of([(int(right.sum()), n)], expected_calibration_error=error, calibration=rows)
        outcomes.append(status("A103", record))
    assert outcomes.count("pass") / RUNS <= SIDE + NOISE
    assert (outcomes.count("warn") + outcomes.count("error")) / RUNS <= SIDE + NOISE


@pytest.mark.parametrize("n", [64, 256, 1000])
@pytest.mark.parametrize("gain", [0.0, 0.01, 0.04])
def test_a_fall_on_the_threshold_is_decided_in_at_most_2_5_percent(n: int, gain: float) -> None:
    random = np.random.default_rng(2)
    for threshold, fails in ((0.03, {"warn", "error"}), (0.10, {"error"})):
        outcomes = []
        for _ in range(RUNS):
            lost, gained, rest = random.multinomial(n, [threshold + gain, gain, 1 - threshold - 2 * gain])
            clean = int(lost + random.binomial(rest, 0.95))
            outcomes.append(
                status("A301", one_operation(clean, n, lost=int(lost), gained=min(int(gained), n - clean), mean=0.8))
            )
        assert sum(each in fails for each in outcomes) / RUNS <= SIDE + NOISE
        if threshold == 0.03:
            assert outcomes.count("pass") / RUNS <= SIDE + NOISE


@pytest.mark.parametrize("n", [32, 256, 1000])
@pytest.mark.parametrize(("rule", "share"), [("A302", 0.75), ("A303", 0.60)])
def test_a_mean_over_operations_on_the_threshold_is_decided_in_at_most_2_5_percent(
    rule: str, share: float, n: int
) -> None:
    """Samples that are right under all ten settings or under none, the case of the largest variance, and others."""
    random = np.random.default_rng(3)
    for spread in (True, False):
        outcomes = []
        for _ in range(RUNS):
            clean = int(random.binomial(n, 0.9))
            kept = random.binomial(clean, share) if spread else random.binomial(10, share, size=clean).sum() / 10
            record = one_operation(clean, n, lost=0, gained=0, mean=float(kept) / n)
            outcomes.append(status(rule, record))
        assert outcomes.count("pass") / RUNS <= SIDE + NOISE
        assert (outcomes.count("warn") + outcomes.count("error")) / RUNS <= SIDE + NOISE


LEARNED_NOTHING = {
    # correct of each class, for 36 images of ten classes, 10 of 1,000, 180 of two, and 16 images of two
    "untrained": [(29, 36)] + [(0, 36)] * 9,
    "random labels": [(3, 36), (4, 36), (5, 36), (2, 36), (4, 36), (3, 36), (4, 36), (4, 36), (3, 36), (4, 36)],
    "a constant answer": [(36, 36)] + [(0, 36)] * 9,
    "1,000 classes": [(10, 10)] + [(0, 10)] * 999,
    "two classes": [(180, 180), (0, 180)],
    "n = 16": [(8, 8), (2, 8)],
}
COMPARED = {"A201", "A202", "A203", "A204", "A205", "A301", "A302", "A303", "A102"}


@pytest.mark.parametrize("model", LEARNED_NOTHING)
def test_a_model_that_learned_nothing_holds_nothing_that_rests_on_accuracy(model: str) -> None:
    clean = clean_of(LEARNED_NOTHING[model])
    before = clean.correct
    n, left = clean.n, before - before // 4  # an attack that hardly matters: 75 % of little is left
    records = [
        clean, robust_of(left, before, n), curve_of(before, before), one_operation(before, n, lost=0, gained=0,
                                                                                    mean=before / n),
        attacked("fgsm", 900), attacked("signed-steps", 100, loss_per_step=(2.3, 2.4),
                                                           constrained=False),
    ]  # fmt: skip
    statuses = {verdict.rule: verdict for verdict in judge(records)}
    assert statuses["A101"].status in {"error", "cannot tell"}
    for rule in COMPARED:
        assert statuses[rule].status == "not run", rule
        assert "not clearly better than always answering the commonest class" in statuses[rule].measured


def test_1000_classes_of_few_images_are_judged_where_the_model_learned() -> None:
    """Half of the images of a thousand classes right: far better than a thousandth, and no class is told apart."""
    clean = clean_of([(5, 10)] * 1000)
    statuses = {verdict.rule: verdict for verdict in judge([clean, robust_of(4900, 5000, 10_000)])}
    assert (statuses["A101"].status, statuses["A202"].status) == ("pass", "pass")
    assert statuses["A102"].status == "cannot tell"
    assert "images of class 0 would settle it" in statuses["A102"].measured


def test_a_finding_about_the_measurement_stays_where_the_model_learned_nothing() -> None:
    clean = clean_of(LEARNED_NOTHING["a constant answer"])
    masked = sanity("zero gradients", 1.0, "40 % of the samples have no usable gradient")
    assert {v.rule: v.status for v in judge([clean, masked])}["A214"] == "error"
    held = sanity("more steps help", 0.0, "twice the steps break 0.0 %")
    assert {v.rule: v.status for v in judge([clean, held])}["A220"] == "not run"


def test_of_16_images_nothing_that_is_compared_is_held() -> None:
    records = [
        clean_of([(8, 8), (8, 8)]), robust_of(15, 16, 16), curve_of(10, 16),
        one_operation(16, 16, lost=0, gained=0, mean=0.9),
    ]  # fmt: skip
    statuses = {verdict.rule: verdict.status for verdict in judge(records)}
    told = {rule: statuses[rule] for rule in ("A102", "A103", "A202", "A203", "A301", "A302")}
    assert set(told.values()) == {"cannot tell"}, told
    assert statuses["A303"] == "pass"  # 90 % of 16 is more than 60 % beyond noise


@pytest.mark.parametrize(("share", "n"), [(0.70, 200), (0.80, 100), (0.72, 400)])
def test_the_number_of_images_that_is_named_settles_it_four_times_in_five(share: float, n: int) -> None:
    verdict = find_rule("A202").verdict(Evidence([robust_of(round(share * n), n, n)]))
    if verdict.status != "cannot tell":
        pytest.fail(verdict.measured)
    needed = int(verdict.measured.split("; about ")[1].split(" images")[0].replace(",", ""))
    random = np.random.default_rng(4)
    settled = [
        status("A202", robust_of(int(k), needed, needed)) != "cannot tell" for k in random.binomial(needed, share, 300)
    ]
    assert 0.7 <= np.mean(settled) <= 0.97


def test_a_share_on_its_threshold_names_no_number_of_images() -> None:
    verdict = find_rule("A202").verdict(Evidence([robust_of(75, 100, 100)]))
    assert verdict.measured.endswith("; too close to the threshold to be settled by more images")
