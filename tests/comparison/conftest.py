"""Small checkups with samples that can be paired: no model, no torch.

make_checkup   a checkup on n samples; ``right`` and ``robust`` say which samples were right, ``levels`` up to which ε
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from assay.records.accuracy import ClassAccuracy, CleanAccuracy
from assay.records.attack import EpsilonCurve, EpsilonPoint, RobustAccuracy
from assay.records.base import Environment
from assay.records.checkup import Checkup, Subject
from assay.records.samples import SampleBits, SampleLevels, SampleSet, write_runs
from assay.verdict import judge

EPSILONS = (0.0, 1 / 255, 2 / 255, 4 / 255)


def samples(ids: Sequence[int], *, of: str = "d") -> SampleSet:
    text = write_runs(list(ids))
    return SampleSet(n=len(ids), ids=text, labels=f"labels {of} {text}", pixels=f"pixels {of} {text}")


def make_checkup(
    right: Sequence[bool],
    robust: Sequence[bool] | None = None,
    levels: Sequence[int] | None = None,
    *,
    ids: Sequence[int] | None = None,
    of: str = "d",
    steps: int = 20,
    started: str = "2026-01-01T00:00:00+00:00",
    keeps: bool = True,
    model: str = "net",
) -> Checkup:
    n = len(right)
    known = samples(range(n) if ids is None else ids, of=of)
    bits = [SampleBits.of(known, values) if keeps else None for values in (right, robust or right)]
    records: list[object] = [
        CleanAccuracy.of(
            sum(right), n, loss=0.5, per_class=tuple(
                ClassAccuracy.of(sum(right[k::2]), len(right[k::2]), name=name) for k, name in enumerate("ab")
            ), confusion=(),
            expected_calibration_error=0.01, calibration=(), mean_confidence=0.9, images_per_second=1.0,
            per_sample=bits[0],
        )
    ]  # fmt: skip
    if robust is not None:
        records.append(
            RobustAccuracy.of(
                sum(robust), n, attack="pgd", norm="linf", epsilon=8 / 255, step_size=2 / 255, steps=steps,
                restarts=1, seed=0, clean_correct=sum(right), seconds=1.0, per_sample=bits[1],
            )
        )  # fmt: skip
    if levels is not None:
        points = tuple(
            EpsilonPoint.of(sum(level > k for level in levels), n, epsilon=e) for k, e in enumerate(EPSILONS)
        )
        kept = SampleLevels.of(known, levels) if keeps else None
        records.append(
            EpsilonCurve(
                attack="pgd", norm="linf", steps=10, points=points, median_epsilon=None, seconds=1.0, per_sample=kept
            )
        )
    return Checkup(
        subject=Subject(
            model=model, weights=None, data=of, split="test", n=n, available=1000, classes=("a", "b"),
            image_shape=(1, 8, 8), samples=samples(range(1000), of=of),
        ),
        budget="quick", seed=0, started=started, seconds=1.0,
        environment=Environment(
            assay="0", python="3", torch="2", numpy="2", platform="p", processor="p", cores=1, threads=1, device="cpu",
            memory_gib=1.0,
        ),
        stages=(), records=tuple(records), verdicts=judge(records),
    )  # fmt: skip


@pytest.fixture(name="make_checkup")
def _make_checkup() -> object:
    return make_checkup
