"""Every kind of measurement that a document may hold, told apart by ``kind``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from assay.records.accuracy import CleanAccuracy
from assay.records.anatomy import Anatomy
from assay.records.attack import AdversarialGallery, EpsilonCurve, RobustAccuracy
from assay.records.gradients import GradientFlow, InputGradients
from assay.records.mode import ModeAudit
from assay.records.spectrum import LayerSpectra
from assay.records.training import DecayGroups, OptimizerAudit, TrainingRun

Measurement = Annotated[
    CleanAccuracy
    | RobustAccuracy
    | EpsilonCurve
    | AdversarialGallery
    | GradientFlow
    | InputGradients
    | LayerSpectra
    | ModeAudit
    | Anatomy
    | DecayGroups
    | OptimizerAudit
    | TrainingRun,
    Field(discriminator="kind"),
]
