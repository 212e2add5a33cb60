"""The document ``check.json``: everything one check measured and concluded. The report is drawn from it alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeVar

from assay.records.base import Frozen, Record
from assay.records.baseline import Outdated
from assay.records.environment import Environment
from assay.records.finding import Verdict
from assay.records.measurements import Measurement
from assay.records.samples import SampleSet

SCHEMA_VERSION: Literal[1] = 1
R = TypeVar("R", bound=Record)


class Subject(Frozen):
    """What was put to the test: the model and the data as the user named them; sequences have no ``image_shape``.

    ``samples`` identifies all the ``available`` ones, so that parts of one set can be paired with one another.
    """

    model: str
    weights: str | None
    data: str
    split: str
    n: int
    available: int
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    modality: Literal["images", "sequences"] = "images"
    samples: SampleSet | None = None


class Stage(Frozen):
    """One stage of a check: what ran, for how long, or why it did not run."""

    name: str
    seconds: float
    skipped: str | None = None


class Checkup(Record):
    """One check. ``schema_version`` rises when a reader of the older form would misread the newer.

    ``outdated`` are the entries of its baseline that accepted nothing.
    """

    kind: Literal["checkup"] = "checkup"
    schema_version: Literal[1] = SCHEMA_VERSION
    subject: Subject
    budget: str
    seed: int
    started: str
    seconds: float
    environment: Environment
    stages: tuple[Stage, ...]
    records: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]
    outdated: tuple[Outdated, ...] = ()

    def each(self, kind: type[R]) -> Iterator[R]:
        """The records of one class, in the order they were measured."""
        return (record for record in self.records if isinstance(record, kind))

    def first(self, kind: type[R]) -> R | None:
        """The first record of one class, or None when nothing of the kind was measured."""
        return next(self.each(kind), None)
