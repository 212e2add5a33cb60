"""The chapters of evidence, in the order of the page: each takes the checkup, and gives a section or None."""

from __future__ import annotations

from assay.records.checkup import Checkup
from assay.report.parts import Section
from assay.report.sections.accuracy import accuracy_section, invariance_section
from assay.report.sections.anatomy import anatomy_section, spectra_section
from assay.report.sections.attacks import attack_anatomy_section, robustness_section, sanity_section
from assay.report.sections.configuration import decay_section, modes_section, normalization_section, optimizer_section
from assay.report.sections.fixes import accepted_section, fixes_section
from assay.report.sections.gradients import curvature_section, depth_trace_section, gradient_flow_section
from assay.report.sections.measured import leftovers_section, measured_section
from assay.report.sections.recurrence import recurrence_section, remedies_section, sequences_section
from assay.report.sections.samples import gallery_section, input_gradients_section, samples_section
from assay.report.sections.training import training_section

EVIDENCE = (
    accepted_section,
    fixes_section,
    accuracy_section,
    robustness_section,
    attack_anatomy_section,
    gallery_section,
    samples_section,
    sanity_section,
    invariance_section,
    input_gradients_section,
    gradient_flow_section,
    depth_trace_section,
    sequences_section,
    recurrence_section,
    remedies_section,
    curvature_section,
    modes_section,
    normalization_section,
    decay_section,
    optimizer_section,
    spectra_section,
    training_section,
    anatomy_section,
)


def build_sections(checkup: Checkup) -> tuple[Section, ...]:
    """Every section that has something to show, ending with how it was measured."""
    evidence = [section for make in EVIDENCE if (section := make(checkup)) is not None]
    leftovers = leftovers_section(checkup, shown=(record for section in evidence for record in section.records))
    return (*evidence, *([leftovers] if leftovers else []), measured_section(checkup))
