"""What was asked for and could not be measured."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Record


class FailedMeasurement(Record):
    """A measurement that was asked for and failed: no verdict rests on it, and no check that holds one is complete.

    Attributes:
        stage: the stage of the check that it belongs to.
        measurement: what failed within the stage, such as ``pgd``; the stage's own name where it is the whole stage.
        missing: the kinds of the records that it would have given.
        reason: the error, in one line.
        way_out: what to do about it.
        refused: nothing failed: it cannot be measured of a model of this kind, such as gradients of a program that runs
            forward only.

    Example:
        >>> import assay
        >>> from assay.records.failure import FailedMeasurement
        >>> failed = FailedMeasurement(
        ...     stage="attacks", measurement="pgd", missing=("robust_accuracy",), reason="no gradient", way_out="mend"
        ... )
        >>> {verdict.rule: verdict.status for verdict in assay.judge([failed])}["A202"]
        'could not run'
    """

    kind: Literal["failed_measurement"] = "failed_measurement"
    stage: str
    measurement: str
    missing: tuple[str, ...]
    reason: str
    way_out: str
    refused: bool = False

    @property
    def place(self) -> str:
        """``attacks (pgd)``; the name of the stage where all of it failed."""
        return self.stage if self.measurement == self.stage else f"{self.stage} ({self.measurement})"
