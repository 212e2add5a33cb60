"""Rules about saliency maps: their statuses, and how often they err on maps whose true number is the threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from assay.records.finding import Verdict
from assay.records.saliency import CheckedMap, RandomizedLayers, SaliencyMaps, UnmadeMap
from assay.verdict.catalogue import judge

METHODS = ("gradient", "integrated-gradients", "smoothgrad", "grad-cam")


def measured(gains: Sequence[Sequence[float]], correlations: Sequence[Sequence[float]] = (), **more) -> SaliencyMaps:
    maps = tuple(
        CheckedMap(
            method=METHODS[i],
            blank=0,
            deleted=(1.0, 0.0),
            gains=tuple(gains[i]),
            randomized=(RandomizedLayers(layer="conv", layers=9, correlations=tuple(correlations[i])),)
            if correlations
            else (),
        )
        for i in range(len(gains))
    )
    return SaliencyMaps(n=32, regions=64, orders=4, fractions=(0.0, 1.0), random=(1.0, 0.0), maps=maps, **more)


def verdict(rule: str, record: SaliencyMaps) -> Verdict:
    return next(each for each in judge([record]) if each.rule == rule)


def values(mean: float, *, n: int = 32, spread: float = 0.05) -> list[float]:
    return [mean + spread * (-1) ** i for i in range(n)]


def test_the_worst_map_decides_and_is_named() -> None:
    record = measured([values(0.2), values(-0.1), values(0.0, spread=0.2)])
    worst = verdict("A406", record)
    assert (worst.status, worst.where, worst.value) == ("warn", "integrated-gradients", pytest.approx(-0.1))
    unclear = verdict("A406", measured([values(0.2), values(0.03, spread=0.2)]))
    assert (unclear.status, unclear.where) == ("cannot tell", "integrated-gradients")
    assert "images would settle it" in unclear.measured
    assert verdict("A406", measured([values(0.2), values(0.1)])).status == "pass"


@pytest.mark.parametrize(
    ("gains", "status"),
    [
        (values(0.2, n=7), "cannot tell"), ([0.0] * 32, "cannot tell"), ([0.3] * 32, "cannot tell"), ([], "not run"),
        ([0.2], "cannot tell"),
    ],
    ids=["seven images", "no gain at all", "all the same", "no image", "one image"],
)  # fmt: skip
def test_too_little_is_no_verdict(gains: list[float], status: str) -> None:
    assert verdict("A406", measured([gains])).status == status


def test_what_did_not_run_is_told_with_its_reason() -> None:
    unmade = (UnmadeMap(method="grad-cam", reason="no convolutional feature map"),)
    record = measured([values(0.2)], unmade=unmade, unrandomized="a model that can be copied, got none")
    assert verdict("A406", record).measured.endswith("; grad-cam not run: no convolutional feature map")
    random = verdict("A405", record)
    assert (random.status, random.measured) == ("not run", "a model that can be copied, got none")


def test_a_map_that_stays_is_warned_of_and_does_not_count_against_the_model() -> None:
    record = measured([values(0.2)] * 2, [values(0.1, n=8), values(0.9, n=8)])
    alike = verdict("A405", record)
    assert (alike.status, alike.where, alike.scored) == ("warn", "integrated-gradients", False)
    assert verdict("A405", measured([values(0.2)], [values(0.1, n=8)])).status == "pass"


# Differences of areas under deletion curves have many near zero and few large, to either side.
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda draws, size: draws.normal(0, 0.15, size),
    "heavy tails": lambda draws, size: 0.1 * draws.standard_t(3, size),
    "differences of shares": lambda draws, size: draws.beta(0.7, 1.4, size) - draws.beta(0.7, 1.4, size),
}


@pytest.mark.parametrize("n", [8, 32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("maps", [1, 4])
def test_at_the_threshold_each_error_is_as_rare_as_promised(shape: str, n: int, maps: int) -> None:
    draws, times = np.random.default_rng(n + maps), 800
    statuses = [
        verdict("A406", measured(SHAPES[shape](draws, (maps, n)).tolist())).status for _ in range(times // maps)
    ]
    allowed = 0.025 + 3 * (0.025 * 0.975 / len(statuses)) ** 0.5
    assert statuses.count("warn") / len(statuses) <= allowed
    assert statuses.count("pass") / len(statuses) <= allowed
