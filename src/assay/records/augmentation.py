"""What image operations do to a model's accuracy."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record
from assay.records.samples import SampleLevels


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


class OperationAccuracy(Frozen):
    """One operation at rising strengths, its magnitudes in ``unit``; ``mean_accuracy`` is the mean over ``points``."""

    operation: str
    unit: str
    points: tuple[OperationPoint, ...]
    mean_accuracy: float


class Invariance(Record):
    """Accuracy under each image operation, on the same samples as the ``clean`` one.

    ``mean_accuracy`` is the mean over operations of their means; ``worst_operation`` has the lowest of them.
    ``per_sample`` counts for each sample the (operation, strength) pairs under which it was right.
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
