"""The document ``check.json``: everything one check measured and concluded. The report is drawn from it alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, computed_field, model_validator

from assay.records.accuracy import CleanAccuracy, Invariance, SequenceAccuracy
from assay.records.anatomy import Anatomy
from assay.records.attack import (
    AdversarialGallery,
    AttackAnatomy,
    AttackSanity,
    EpsilonCurve,
    RobustAccuracy,
    SampleGallery,
)
from assay.records.base import Environment, Frozen, Record
from assay.records.budget import CheckPlan
from assay.records.comparison import AppliedFix
from assay.records.compression import LayerSpectra
from assay.records.configuration import ModeAudit, NormalizationAudit, PreparationAudit
from assay.records.failure import FailedMeasurement
from assay.records.finding import Outdated, Verdict
from assay.records.gradients import Curvature, DepthTrace, GradientFlow, InputGradients
from assay.records.mistakes import ConfidentMistakes
from assay.records.pixels import PixelRange
from assay.records.provenance import Provenance
from assay.records.quality import Duplicates, PictureSurvey, RelatedAccuracy
from assay.records.recurrence import RemedyComparison, TimeTrace
from assay.records.saliency import SaliencyMaps
from assay.records.sample_table import SampleTable
from assay.records.samples import SampleSet
from assay.records.scores import JUDGED_BY_DEFAULT, FitForUse, Score, Use, judge_uses, score_categories
from assay.records.training import DecayGroups, OptimizerAudit, TrainingRun

Measurement = Annotated[
    CleanAccuracy | RobustAccuracy | EpsilonCurve | AdversarialGallery | SampleGallery | AttackSanity | AttackAnatomy
    | Invariance | GradientFlow | InputGradients | LayerSpectra | ModeAudit | NormalizationAudit | PreparationAudit
    | DepthTrace | TimeTrace | SequenceAccuracy | RemedyComparison | Curvature | Anatomy | DecayGroups | OptimizerAudit
    | PixelRange | SampleTable | SaliencyMaps | ConfidentMistakes | Provenance | Duplicates | PictureSurvey
    | RelatedAccuracy
    | TrainingRun | AppliedFix | FailedMeasurement,
    Field(discriminator="kind"),
]  # fmt: skip
SCHEMA_VERSION: Literal[1] = 1
R = TypeVar("R", bound=Record)


class Subject(Frozen):
    """The model and the data as the user named them; sequences have no ``image_shape``.

    ``samples`` identifies all the ``available`` ones, so that parts of one set can be paired with one another.
    ``notes`` say how the model is called and which part of its output are the logits, where that is not plain.
    ``source`` is ``predictions`` where no model was run, and what it said of the samples was read from a file, and
    ``data`` where there is no model at all.
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
    notes: tuple[str, ...] = ()
    source: Literal["model", "predictions", "data"] = "model"


class Stage(Frozen):
    """One stage of a check: how long it ran; ``skipped`` says why nothing of it was measured, ``note`` what changed."""

    name: str
    seconds: float
    skipped: str | None = None
    note: str | None = None


class Checkup(Record):
    """One check: all that was measured and concluded, as ``check.json`` holds it.

    Attributes:
        schema_version: rises when a reader of the older form would misread the newer.
        subject: the model and the data that were checked.
        budget: ``quick``, ``standard`` or ``full``, or the wall time that the check was fitted into.
        plan: the images and steps that the stages took, and the times that were planned.
        seed: of all random numbers.
        started: time in ISO 8601, UTC.
        seconds: wall-clock time.
        environment: software and machine.
        stages: what ran and for how long, and what did not run and why.
        records: the measurements, told apart by ``kind``.
        verdicts: one for each rule.
        outdated: entries of the baseline that accepted nothing.
        uses: what the model is to be fit for: ``benign``, ``shifted`` or ``adversarial`` images.
        scores: of each category, by each version of the formula; they follow from the verdicts.
        fitness: for each use whether the model is fit for it; this follows from the verdicts, too.

    Example:
        >>> import assay
        >>> from assay.records.checkup import Subject
        >>> from assay.runtime import describe_environment
        >>> data = assay.load_dataset("digits", limit=32)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> checkup = assay.Checkup(
        ...     subject=Subject(model="mlp", weights=None, data="digits", split="test", n=32, available=32,
        ...                     classes=data.classes, image_shape=data.shape),
        ...     budget="quick", seed=0, started="2026-01-01", seconds=0.0, environment=describe_environment("cpu"),
        ...     stages=(), records=(assay.measure_clean_accuracy(model, data),), verdicts=(),
        ... )  # or what assay.run_check returned
        >>> checkup.first(assay.CleanAccuracy).n
        32
    """

    kind: Literal["checkup"] = "checkup"
    schema_version: Literal[1] = SCHEMA_VERSION
    subject: Subject
    budget: str
    plan: CheckPlan | None = None
    seed: int
    started: str
    seconds: float
    environment: Environment
    stages: tuple[Stage, ...]
    records: tuple[Measurement, ...]
    verdicts: tuple[Verdict, ...]
    outdated: tuple[Outdated, ...] = ()
    uses: tuple[Use, ...] = JUDGED_BY_DEFAULT

    @computed_field  # type: ignore[prop-decorator]
    @property
    def scores(self) -> tuple[Score, ...]:
        """Both versions of the score of each category."""
        return score_categories(self.verdicts)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fitness(self) -> tuple[FitForUse, ...]:
        """Whether the model is fit for each use."""
        return judge_uses(self.verdicts, self.uses)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_follows(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: part for name, part in value.items() if name not in {"scores", "fitness"}}

    def each(self, kind: type[R]) -> Iterator[R]:
        """The records of one class, in the order they were measured."""
        return (record for record in self.records if isinstance(record, kind))

    def first(self, kind: type[R]) -> R | None:
        """The first record of one class, or None when nothing of the kind was measured."""
        return next(self.each(kind), None)

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for could be measured and judged."""
        return self.first(FailedMeasurement) is None and all(v.status != "could not run" for v in self.verdicts)
