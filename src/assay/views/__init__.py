"""What app and terminal both show: one picture, its prediction, maps, attacks, a factorisation; recurrences."""

from assay.views.attack import AttackChoice, PictureAttack, attack_picture, find_smallest_perturbation
from assay.views.context import ViewContext
from assay.views.explanation import PictureMap, explain_picture
from assay.views.factorization import factor_picture
from assay.views.picture import Picture, apply_operations, predict_picture, read_picture, sample_at
from assay.views.recurrence import RecurrenceChoice, measure_recurrence
from assay.views.samples import FoundSample, FoundSamples, SampleSearch

__all__ = [
    "AttackChoice",
    "FoundSample",
    "FoundSamples",
    "Picture",
    "PictureAttack",
    "PictureMap",
    "RecurrenceChoice",
    "SampleSearch",
    "ViewContext",
    "apply_operations",
    "attack_picture",
    "explain_picture",
    "factor_picture",
    "find_smallest_perturbation",
    "measure_recurrence",
    "predict_picture",
    "read_picture",
    "sample_at",
]
