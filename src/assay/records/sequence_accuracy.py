"""How well a sequence model does its task, beside a model without memory."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Record


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
