"""Every kind of measurement that a document may hold, told apart by ``kind``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from assay.records.accuracy import CleanAccuracy
from assay.records.anatomy import Anatomy
from assay.records.attack import AdversarialGallery, AttackAnatomy, AttackSanity, EpsilonCurve, RobustAccuracy
from assay.records.augmentation import Invariance
from assay.records.curvature import Curvature
from assay.records.depth_trace import DepthTrace
from assay.records.fixes import AppliedFix
from assay.records.gradients import GradientFlow, InputGradients
from assay.records.mode import ModeAudit
from assay.records.normalization import NormalizationAudit
from assay.records.recurrence import TimeTrace
from assay.records.remedies import RemedyComparison
from assay.records.sample_gallery import SampleGallery
from assay.records.sequence_accuracy import SequenceAccuracy
from assay.records.spectrum import LayerSpectra
from assay.records.training import DecayGroups, OptimizerAudit, TrainingRun

Measurement = Annotated[
    CleanAccuracy
    | RobustAccuracy
    | EpsilonCurve
    | AdversarialGallery
    | SampleGallery
    | AttackSanity
    | AttackAnatomy
    | Invariance
    | GradientFlow
    | InputGradients
    | LayerSpectra
    | ModeAudit
    | NormalizationAudit
    | DepthTrace
    | TimeTrace
    | SequenceAccuracy
    | RemedyComparison
    | Curvature
    | Anatomy
    | DecayGroups
    | OptimizerAudit
    | TrainingRun
    | AppliedFix,
    Field(discriminator="kind"),
]
