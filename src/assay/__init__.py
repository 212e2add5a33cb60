"""assay: put an image classifier to the test: train it, attack it, see why it fails.

Example:
    >>> import assay
    >>> data = assay.load_dataset("digits", limit=64)
    >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)  # or any nn.Module of yours
    >>> checkup = assay.run_check(model, data, budget="quick", limit=16)
    >>> any(verdict.status == "error" for verdict in checkup.verdicts)
    True

Every name and package below loads when it is first used, so that ``import assay`` is quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from assay.records.views import VIEWS

# The public surface, by the module it comes from. The imports for type checkers repeat it; a test keeps both equal.
_PUBLIC: dict[str, tuple[str, ...]] = {
    "assay.attacks": (
        "APGD",
        "AdaptiveAttack",
        "AttackResult",
        "FAB",
        "FGSM",
        "MinimumNorm",
        "PGD",
        "SignedSteps",
        "Square",
        "StandardAttack",
        "Threat",
        "attack",
        "list_attacks",
        "measure_attack_sanity",
        "measure_epsilon_curve",
        "measure_robust_accuracy",
    ),
    "assay.check": ("check_predictions", "compare_models", "run_check"),
    "assay.claims": ("run_claims",),
    "assay.comparison": ("compare",),
    "assay.compression": ("compress",),
    "assay.data": ("ImageDataset", "as_dataset", "load_dataset", "read_predictions"),
    "assay.diagnostics": (
        "audit_modes",
        "audit_normalization",
        "measure_gradient_flow",
        "measure_input_gradients",
        "measure_saliency_maps",
        "measure_invariance",
    ),
    "assay.errors": ("AssayError", "DataError", "InputError", "ModelError", "OptionError"),
    "assay.evaluate": ("measure_clean_accuracy",),
    "assay.lowrank": ("factorize", "measure_spectra"),
    "assay.models": ("as_model", "load_model", "measure_anatomy"),
    "assay.quality": ("find_duplicates", "survey_pictures"),
    "assay.records.accuracy": ("CleanAccuracy",),
    "assay.records.attack": ("RobustAccuracy",),
    "assay.records.checkup": ("Checkup",),
    "assay.records.comparison": ("Comparison",),
    "assay.records.finding": ("Verdict",),
    "assay.records.reading": ("read_checkup",),
    "assay.report.check_page": ("render_page",),
    "assay.tracing": ("trace",),
    "assay.training": ("Recipe", "fit", "load_recipe", "train_classifier"),
    "assay.verdict": ("judge",),
}
_PACKAGES = (  # noqa: SIM905 - a list would take a line a name
    "attacks augment check claims comparison compression data diagnostics errors evaluate fixes lowrank "
    "models quality records report testing tracing training verdict views"
).split()

if TYPE_CHECKING:
    # isort: off
    from assay import attacks as attacks, augment as augment, check as check, claims as claims
    from assay import comparison as comparison, compression as compression, data as data, diagnostics as diagnostics
    from assay import errors as errors, evaluate as evaluate, fixes as fixes, lowrank as lowrank, models as models
    from assay import quality as quality, records as records, report as report, testing as testing
    from assay import tracing as tracing, training as training, verdict as verdict, views as views
    from assay.attacks import APGD as APGD, AdaptiveAttack as AdaptiveAttack, AttackResult as AttackResult, FAB as FAB
    from assay.attacks import FGSM as FGSM, MinimumNorm as MinimumNorm, PGD as PGD, SignedSteps as SignedSteps
    from assay.attacks import Square as Square, StandardAttack as StandardAttack, Threat as Threat, attack as attack
    from assay.attacks import list_attacks as list_attacks, measure_attack_sanity as measure_attack_sanity
    from assay.attacks import measure_epsilon_curve as measure_epsilon_curve
    from assay.attacks import measure_robust_accuracy as measure_robust_accuracy
    from assay.check import check_predictions as check_predictions, compare_models as compare_models
    from assay.check import run_check as run_check
    from assay.claims import run_claims as run_claims
    from assay.comparison import compare as compare
    from assay.compression import compress as compress
    from assay.data import ImageDataset as ImageDataset, as_dataset as as_dataset, load_dataset as load_dataset
    from assay.data import read_predictions as read_predictions
    from assay.diagnostics import audit_modes as audit_modes, audit_normalization as audit_normalization
    from assay.diagnostics import measure_gradient_flow as measure_gradient_flow
    from assay.diagnostics import measure_input_gradients as measure_input_gradients
    from assay.diagnostics import measure_saliency_maps as measure_saliency_maps
    from assay.diagnostics import measure_invariance as measure_invariance
    from assay.errors import AssayError as AssayError, DataError as DataError, InputError as InputError
    from assay.errors import ModelError as ModelError, OptionError as OptionError
    from assay.evaluate import measure_clean_accuracy as measure_clean_accuracy
    from assay.lowrank import factorize as factorize, measure_spectra as measure_spectra
    from assay.models import as_model as as_model, load_model as load_model, measure_anatomy as measure_anatomy
    from assay.quality import find_duplicates as find_duplicates, survey_pictures as survey_pictures
    from assay.records.accuracy import CleanAccuracy as CleanAccuracy
    from assay.records.attack import RobustAccuracy as RobustAccuracy
    from assay.records.checkup import Checkup as Checkup
    from assay.records.comparison import Comparison as Comparison
    from assay.records.finding import Verdict as Verdict
    from assay.records.reading import read_checkup as read_checkup
    from assay.report.check_page import render_page as render_page
    from assay.tracing import trace as trace
    from assay.training import Recipe as Recipe, fit as fit, load_recipe as load_recipe
    from assay.training import train_classifier as train_classifier
    from assay.verdict import judge as judge
    # isort: on

VIEWS.update(
    Checkup="assay.report.notebook:show_checkup",
    Comparison="assay.report.notebook:show_comparison",
    FactorizationReport="assay.report.notebook:show_factorization",
)
_HOMES = dict(sorted((name, home) for home, names in _PUBLIC.items() for name in names))
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"assay.{name}")
    else:
        raise AttributeError(f"module 'assay' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
