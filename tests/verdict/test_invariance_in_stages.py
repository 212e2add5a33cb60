"""The rules of invariance on few samples first: how often looking early changes a verdict, and what it saves."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
import torch
from torch import nn

from assay.data.dataset import ImageDataset
from assay.diagnostics.invariance import FIRST, measure_invariance
from assay.records.accuracy import Invariance, OperationAccuracy, OperationPoint, Proportion
from assay.verdict.catalogue import find_rule
from assay.verdict.invariance import find_open_pairs
from assay.verdict.rule import SIDE, Evidence

RUNS, N, LEVELS = 400, 256, 5
NOISE = 3 * (SIDE * (1 - SIDE) / RUNS) ** 0.5


def record_of(before: np.ndarray, after: list[np.ndarray], sizes: np.ndarray) -> Invariance:
    """Right before (N,), and after each operation (N, levels), of the first ``sizes`` (operations, levels) samples."""
    operations = []
    for number, (right, own) in enumerate(zip(after, sizes, strict=True)):
        points = []
        for level, n in enumerate(own, start=1):
            was, now = before[:n], right[:n, level - 1]
            counts = {"lost": int((was & ~now).sum()), "gained": int((~was & now).sum())}
            points.append(OperationPoint.of(int(now.sum()), int(n), level=level, magnitude_low=-1.0, magnitude_high=1.0, **counts))  # fmt: skip  # noqa: E501
        mean = fmean(point.accuracy for point in points)
        operations.append(OperationAccuracy(operation=f"{number}", unit="", points=tuple(points), mean_accuracy=mean))
    worst = min(operations, key=lambda each: each.mean_accuracy)
    clean = before[: sizes.max()]
    return Invariance(
        clean=Proportion.of(int(clean.sum()), len(clean)), operations=tuple(operations),
        mean_accuracy=fmean(each.mean_accuracy for each in operations), worst_operation=worst.operation,
        worst_accuracy=worst.mean_accuracy, seed=0, seconds=0.0,
    )  # fmt: skip


def in_stages(before: np.ndarray, after: list[np.ndarray]) -> tuple[Invariance, int]:
    """As :func:`measure_invariance` takes its samples; and how many evaluations that were."""
    sizes = np.zeros((len(after), LEVELS), dtype=int)
    opened, stop = {(f"{o}", level) for o in range(len(after)) for level in range(1, LEVELS + 1)}, 0
    while stop < N and opened:
        stop = max(FIRST, 2 * stop)
        for name, level in opened:
            sizes[int(name), level - 1] = stop
        record = record_of(before, after, sizes)
        opened = opened & find_open_pairs(record)
    return record, int(sizes.sum())


def verdict(rule: str, record: Invariance) -> str:
    return find_rule(rule).verdict(Evidence((record,))).status


def draw(random: np.random.Generator, kept: list[float], first: float = 1.0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Samples that stay right under all higher strengths of an operation or under none, the largest variance."""
    before = random.random(N) < 0.9
    after = []
    for share in kept:
        right = np.repeat((before & (random.random(N) < share))[:, None], LEVELS, axis=1)
        right[:, 0] = before & (random.random(N) < first)
        after.append(right)
    return before, after


@pytest.mark.parametrize(
    ("rule", "kept", "first"),
    [
        ("A302", [0.6875, 0.6875], 1.0),  # with the lowest strength 0.75 of what was right before
        ("A303", [0.5, 0.98, 0.98], 1.0),  # 0.60
        ("A301", [0.95, 0.95], 1 - 0.03 / 0.9),
    ],
)
def test_on_a_threshold_a_status_is_wrong_no_more_often_than_of_all_samples(rule, kept, first):
    random = np.random.default_rng(1)
    statuses = [verdict(rule, in_stages(*draw(random, kept, first))[0]) for _ in range(RUNS)]
    assert statuses.count("pass") / RUNS <= SIDE + NOISE
    assert (statuses.count("warn") + statuses.count("error")) / RUNS <= SIDE + NOISE


@pytest.mark.parametrize(
    ("kept", "first"), [([0.98] * 4, 0.999), ([0.05] * 4, 0.5), ([0.95, 0.95, 0.3], 0.99), ([0.7, 0.75], 0.95)]
)
def test_statuses_are_those_of_all_samples_and_take_fewer(kept, first):
    random = np.random.default_rng(2)
    other, cost = 0, []
    for _ in range(60):
        before, after = draw(random, kept, first)
        record, evaluations = in_stages(before, after)
        every = record_of(before, after, np.full((len(after), LEVELS), N))
        other += any({verdict(rule, record), verdict(rule, every)} >= {"pass", "error"} for rule in ("A301", "A302"))
        cost.append(evaluations / (len(after) * LEVELS * N))
        for rule in ("A302", "A303"):
            full = verdict(rule, every)
            assert verdict(rule, record) == full or "cannot tell" in {full, verdict(rule, record)}
    assert other == 0
    assert fmean(cost) <= 1
    if kept[0] in {0.98, 0.05}:
        assert fmean(cost) < 0.5


def test_points_keep_their_own_number_of_samples():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (300, 3, 8, 8), dtype=torch.uint8)
    dataset = ImageDataset(images, torch.arange(300) % 2, ("a", "b"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    asked = []

    def rotation_only(record):
        asked.append(record.clean.n)
        return {("Rotate", 1)}

    record = measure_invariance(model, dataset, operations=("Rotate", "Brightness"), still_open=rotation_only)
    sizes = [[point.n for point in each.points] for each in record.operations]
    assert asked == [64, 128, 256]
    assert sizes == [[300, 64, 64, 64, 64], [64] * 5]
    assert record.clean.n == 300
    assert record.per_sample is not None
    assert record.per_sample.samples.n == 64
    every = measure_invariance(model, dataset, operations=("Rotate", "Brightness"))
    assert every.operations[0].points[0].correct == record.operations[0].points[0].correct
    assert all(point.before.correct == every.clean.correct for point in every.operations[1].points)
