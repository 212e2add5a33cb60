"""Accuracies with their confidence intervals: clean, of sequences, and under image operations."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import field_serializer, field_validator, model_validator

from assay.records.base import Frozen, Record
from assay.records.samples import SampleBits, SampleLevels

MOST_CLASSES = 20_000  # of a confusion matrix: rows of a larger one would not fit into memory
MOST_ROWS = 100  # of a confusion matrix that is written out in JSON; of a larger one only the cells that are not zero
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
        """The proportion ``correct / n`` with its interval; further fields of a subclass pass through."""
        low, high = wilson_interval(correct, n)
        return cls(correct=correct, n=n, accuracy=correct / n if n else 0.0, low=low, high=high, **fields)

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if not 0 <= self.correct <= self.n:
            raise ValueError(f"0 <= correct <= n, got {self.correct} of {self.n}")
        return self


class ClassAccuracy(Proportion):
    """Recall of one class.

    ``low`` and ``high`` are the ends of an interval for this class alone; ``simultaneous_low`` and
    ``simultaneous_high`` those of exact intervals that hold for all classes with samples at once, with a probability of
    95 %: the ones for a class that was picked by its accuracy, such as the worst. None in documents of earlier versions
    and for a class without samples.
    """

    name: str
    simultaneous_low: float | None = None
    simultaneous_high: float | None = None


class CalibrationBin(Frozen):
    """Predictions whose confidence lies in (``low``, ``high``]: how sure, and how often right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class CleanAccuracy(Record, Proportion):
    """Accuracy on clean images, with calibration and confusion: what :func:`assay.measure_clean_accuracy` returns.

    Attributes:
        correct: samples whose largest logit is that of their label, of all ``n``.
        accuracy: ``correct / n``, in [0, 1]; ``low`` and ``high`` are the ends of its 95 % Wilson interval.
        loss: mean cross-entropy, in nats.
        per_class: recall of each class, each with its interval, alone and together with all others.
        confusion: ``confusion[i][j]`` counts samples of class i predicted as class j; (K, K).
        expected_calibration_error: Σ_b (n_b/n)·|accuracy_b − confidence_b| over the bins of ``calibration``.
        calibration: equal-width bins of the largest softmax probability.
        mean_confidence: mean of the largest softmax probability.
        top5_accuracy: share of samples whose label is among the five largest logits; None below six classes.
        non_finite: samples with a logit that is not finite; they count as wrong.
        images_per_second: throughput of the evaluation; NaN where no model was run.
        per_sample: which samples were right, None where they were not kept.
        scored: False where only the predicted class of each sample is known: then ``loss``, ``mean_confidence`` and
            ``expected_calibration_error`` are NaN, and ``calibration`` is empty.

    Example:
        >>> import assay
        >>> clean = assay.CleanAccuracy.of(
        ...     90, 100, loss=0.3, per_class=(), confusion=(), expected_calibration_error=0.02, calibration=(),
        ...     mean_confidence=0.92, images_per_second=1000.0,
        ... )
        >>> clean.accuracy, clean.low < 0.9 < clean.high
        (0.9, True)

    Reference:
        Guo et al. 2017, On calibration of modern neural networks, eq. 3; Wilson 1927 for the interval.
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
    scored: bool = True

    @field_serializer("confusion", when_used="json")
    def _write_confusion(self, confusion: tuple[tuple[int, ...], ...]) -> object:
        if len(confusion) <= MOST_ROWS:
            return confusion
        cells = [[i, j, n] for i, row in enumerate(confusion) for j, n in enumerate(row) if n]
        return {"classes": len(confusion), "cells": cells}

    @field_validator("confusion", mode="before")
    @classmethod
    def _read_confusion(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        size, cells = value.get("classes"), value.get("cells")
        if not isinstance(size, int) or not isinstance(cells, list) or not 0 <= size <= MOST_CLASSES:
            raise ValueError("a confusion matrix needs its number of classes, and its cells")
        rows = [[0] * size for _ in range(size)]
        for cell in cells:
            if not isinstance(cell, list) or len(cell) != 3 or not all(isinstance(each, int) for each in cell):
                raise ValueError(f"a cell of a confusion matrix is [true, predicted, images], got {cell!r:.60}")
            true, predicted, images = cell
            if not (0 <= true < size and 0 <= predicted < size):
                raise ValueError(f"a cell lies outside of a confusion matrix of {size} classes: {cell}")
            rows[true][predicted] = images
        return rows


class SequenceAccuracy(Record, Proportion):
    """``correct`` of ``n`` test sequences are predicted as ``right_is`` states, such as "all 10 symbols recalled".

    ``loss`` is the mean in ``loss_unit``; ``baseline`` is the loss of the best prediction without memory, which
    ``baseline_is`` names.
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


class OperationPoint(Proportion):
    """Accuracy under one operation at one strength.

    ``level`` rises from 1, which hardly anyone would notice. Half of the samples get ``magnitude_low``, the other
    half ``magnitude_high``: the two directions of one strength. ``lost`` samples were right without the operation
    and are wrong with it; ``gained`` the other way round.
    """

    level: int
    magnitude_low: float
    magnitude_high: float
    lost: int
    gained: int

    @property
    def before(self) -> Proportion:
        """How many of the same samples were right without the operation."""
        n = max(int(self.n), 0)
        return Proportion.of(min(max(int(self.correct + self.lost - self.gained), 0), n), n)


class OperationAccuracy(Frozen):
    """One operation at rising strengths, its magnitudes in ``unit``; ``mean_accuracy`` is the mean over ``points``."""

    operation: str
    unit: str
    points: tuple[OperationPoint, ...]
    mean_accuracy: float


class Invariance(Record):
    """Accuracy under each image operation, on the same samples as the ``clean`` one or on the first of them.

    ``mean_accuracy`` is the mean over operations of their means; ``worst_operation`` has the lowest of them.
    ``per_sample`` counts for each sample that all (operation, strength) pairs were measured on those under which it
    was right.
    """

    kind: Literal["invariance"] = "invariance"
    clean: Proportion
    operations: tuple[OperationAccuracy, ...]
    mean_accuracy: float
    worst_operation: str
    worst_accuracy: float
    seed: int
    seconds: float
    per_sample: SampleLevels | None = None
