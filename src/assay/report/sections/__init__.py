"""The chapters of evidence, in the order of the page: each takes the records it draws, and gives a section or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from assay.records.accuracy import CleanAccuracy, Invariance, SequenceAccuracy
from assay.records.anatomy import Anatomy
from assay.records.attack import AdversarialGallery, AttackAnatomy, AttackSanity, SampleGallery
from assay.records.base import Record
from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix
from assay.records.compression import LayerSpectra
from assay.records.configuration import ModeAudit, NormalizationAudit, PreparationAudit
from assay.records.failure import FailedMeasurement
from assay.records.finding import Verdict
from assay.records.gradients import Curvature, DepthTrace, GradientFlow, InputGradients
from assay.records.mistakes import ConfidentMistakes
from assay.records.pixels import PixelRange
from assay.records.provenance import Provenance
from assay.records.quality import Duplicates, PictureSurvey, RelatedAccuracy
from assay.records.recurrence import RemedyComparison, TimeTrace
from assay.records.saliency import SaliencyMaps
from assay.records.sample_table import SampleTable
from assay.records.training import DecayGroups, OptimizerAudit, TrainingRun
from assay.report.parts import Section
from assay.report.sections.accuracy import accuracy_section, invariance_section
from assay.report.sections.anatomy import anatomy_section, spectra_section
from assay.report.sections.attacks import attack_anatomy_section, robustness_section, sanity_section
from assay.report.sections.configuration import (
    decay_section,
    modes_section,
    normalization_section,
    optimizer_section,
    preparation_section,
)
from assay.report.sections.data import metadata_section, pixels_section, provenance_section
from assay.report.sections.fixes import accepted_section, fixes_section
from assay.report.sections.gradients import curvature_section, depth_trace_section, gradient_flow_section
from assay.report.sections.measured import failures_section, leftovers_section, measured_section
from assay.report.sections.quality import duplicates_section, related_section, survey_section
from assay.report.sections.recurrence import recurrence_section, remedies_section, sequences_section
from assay.report.sections.saliency import saliency_section
from assay.report.sections.samples import gallery_section, input_gradients_section, mistakes_section, samples_section
from assay.report.sections.training import training_section
from assay.report.summary import in_order

R = TypeVar("R", bound=Record)
Maker = Callable[[Checkup], Section | None]


def _first(kind: type[R], make: Callable[[R], Section | None]) -> Maker:
    """Drawn from the first record of that kind."""
    return lambda checkup: None if (record := checkup.first(kind)) is None else make(record)


def _all(kind: type[R], make: Callable[[Sequence[R]], Section | None]) -> Maker:
    """Drawn from all records of that kind, of which there is at least one."""
    return lambda checkup: make(records) if (records := list(checkup.each(kind))) else None


EVIDENCE: tuple[Maker, ...] = (
    accepted_section,
    _all(FailedMeasurement, failures_section),
    _all(AppliedFix, fixes_section),
    _first(CleanAccuracy, accuracy_section),
    _all(RelatedAccuracy, related_section),
    _all(Duplicates, duplicates_section),
    _first(PictureSurvey, survey_section),
    _first(ConfidentMistakes, mistakes_section),
    robustness_section,
    _all(AdversarialGallery, gallery_section),
    _all(SampleGallery, samples_section),
    _first(Invariance, invariance_section),
    _all(DepthTrace, depth_trace_section),
    _all(SequenceAccuracy, sequences_section),
    _all(TimeTrace, recurrence_section),
    _all(RemedyComparison, remedies_section),
    _first(Curvature, curvature_section),
    _all(TrainingRun, training_section),
)
# how the attacks work and whether they can be trusted, the model from inside, its settings: folded where all is well
DETAILS: tuple[Maker, ...] = (
    _all(AttackAnatomy, attack_anatomy_section),
    _all(AttackSanity, sanity_section),
    _first(SaliencyMaps, saliency_section),
    _first(InputGradients, input_gradients_section),
    _first(GradientFlow, gradient_flow_section),
    _first(ModeAudit, modes_section),
    _first(NormalizationAudit, normalization_section),
    _first(PreparationAudit, preparation_section),
    _first(PixelRange, pixels_section),
    _first(DecayGroups, decay_section),
    _first(OptimizerAudit, optimizer_section),
    _first(LayerSpectra, spectra_section),
    _first(Anatomy, anatomy_section),
    _all(SampleTable, metadata_section),
    _first(Provenance, provenance_section),
)


def build_sections(checkup: Checkup) -> tuple[Section, ...]:
    """Every section that has something to show, ending with how it was measured; each with the verdicts on it."""
    evidence = [section for make in EVIDENCE if (section := make(checkup)) is not None]
    details = [replace(section, folded=True) for make in DETAILS if (section := make(checkup)) is not None]
    shown = (record for section in (*evidence, *details) for record in section.records)
    if (leftovers := leftovers_section(checkup, shown=shown)) is not None:
        details.append(replace(leftovers, folded=True))
    measured = replace(measured_section(checkup), folded=True, printed=True)
    ordered = in_order(checkup.verdicts)
    return tuple(_with_verdicts(section, ordered) for section in (*evidence, *details, measured))


def _with_verdicts(section: Section, verdicts: Sequence[Verdict]) -> Section:
    """The section with the verdicts that rest on its records; open where one of them is a finding."""
    judged = tuple(verdict for verdict in verdicts if not set(section.kinds).isdisjoint(verdict.evidence))
    finding = any(verdict.status in {"error", "warn"} for verdict in judged)
    return replace(section, judged=judged, folded=section.folded and not finding)
