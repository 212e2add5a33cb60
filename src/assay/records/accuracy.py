"""How often a model is right, with the uncertainty that n samples leave."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import model_validator

from assay.records.base import Frozen, Record
from assay.records.samples import SampleBits

Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal


def wilson_interval(correct: int, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a proportion.

    centre = (p + z²/2n) / (1 + z²/n),  half-width = z·√(p(1−p)/n + z²/4n²) / (1 + z²/n)

    Unlike p ± z·√(p(1−p)/n) it keeps its coverage near 0 and 1 and never leaves [0, 1]. Reference: Wilson,
    *Probable inference, the law of succession, and statistical inference*, JASA 22 (1927).
    """
    if not 0 <= correct <= n:
        raise ValueError(f"0 <= correct <= n, got {correct} of {n}")
    if n == 0:
        return (0.0, 1.0)
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if correct == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if correct == n else min(1.0, (centre + half) / scale)
    return (low, high)


class Proportion(Frozen):
    """``correct`` of ``n``, with the 95 % Wilson interval; build it with :meth:`of`."""

    correct: int
    n: int
    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, correct: int, n: int, **fields: Any) -> Self:
        """Count in, proportion and interval out; further fields of a subclass pass through."""
        low, high = wilson_interval(correct, n)
        return cls(correct=correct, n=n, accuracy=correct / n if n else 0.0, low=low, high=high, **fields)

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if not 0 <= self.correct <= self.n:
            raise ValueError(f"0 <= correct <= n, got {self.correct} of {self.n}")
        return self


class ClassAccuracy(Proportion):
    """Recall of one class."""

    name: str


class CalibrationBin(Frozen):
    """Predictions whose confidence lies in (``low``, ``high``]: how sure, and how often right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class CleanAccuracy(Record, Proportion):
    """Accuracy on untouched images.

    ``confusion[i][j]`` counts samples of class i predicted as class j. ``expected_calibration_error`` is
    Σ_b (n_b/n)·|accuracy_b − confidence_b| over equal-width confidence bins (Guo et al. 2017, eq. 3).
    ``loss`` is the mean cross-entropy in nats. ``per_sample`` tells which samples were right.
    """

    kind: Literal["clean_accuracy"] = "clean_accuracy"
    loss: float
    per_class: tuple[ClassAccuracy, ...]
    confusion: tuple[tuple[int, ...], ...]
    expected_calibration_error: float
    calibration: tuple[CalibrationBin, ...]
    mean_confidence: float
    top5_accuracy: float | None = None
    non_finite: int = 0
    images_per_second: float
    per_sample: SampleBits | None = None


class SequenceAccuracy(Record, Proportion):
    """``correct`` of ``n`` test sequences are answered as ``right_is`` says, such as "all 10 symbols recalled".

    ``loss`` is the mean in ``loss_unit``; ``baseline`` is what the best answer without memory loses, and
    ``baseline_is`` says which that is.
    """

    kind: Literal["sequence_accuracy"] = "sequence_accuracy"
    label: str = "model"
    task: str
    length: int
    loss: float
    loss_unit: str
    baseline: float
    baseline_is: str
    right_is: str
