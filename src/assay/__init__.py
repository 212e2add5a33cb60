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
    "assay.check": ("run_check",),
    "assay.claims": ("run_claims",),
    "assay.comparison": ("compare",),
    "assay.compression.run": ("compress",),
    "assay.data.dataset": ("ImageDataset",),
    "assay.data.sources": ("load_dataset",),
    "assay.diagnostics.batchnorm": ("audit_normalization",),
    "assay.diagnostics.depth": ("measure_gradient_flow",),
    "assay.diagnostics.invariance": ("measure_invariance",),
    "assay.diagnostics.modes": ("audit_modes",),
    "assay.diagnostics.saliency": ("measure_input_gradients",),
    "assay.errors": ("AssayError", "DataError", "InputError", "ModelError", "OptionError"),
    "assay.evaluate": ("measure_clean_accuracy",),
    "assay.lowrank.factorization": ("factorize",),
    "assay.lowrank.spectrum": ("measure_spectra",),
    "assay.models.anatomy": ("measure_anatomy",),
    "assay.models.sources": ("load_model",),
    "assay.records.accuracy": ("CleanAccuracy",),
    "assay.records.attack": ("RobustAccuracy",),
    "assay.records.checkup": ("Checkup",),
    "assay.records.comparison": ("Comparison",),
    "assay.records.finding": ("Verdict",),
    "assay.records.reading": ("read_checkup",),
    "assay.report.check_page": ("render_page",),
    "assay.tracing.depth": ("trace",),
    "assay.training.classifier": ("train_classifier",),
    "assay.training.loop": ("fit",),
    "assay.training.recipes": ("Recipe", "load_recipe"),
    "assay.verdict": ("judge",),
}
_PACKAGES = (
    "attacks",
    "augment",
    "check",
    "claims",
    "comparison",
    "compression",
    "data",
    "diagnostics",
    "errors",
    "evaluate",
    "fixes",
    "lowrank",
    "models",
    "records",
    "report",
    "testing",
    "tracing",
    "training",
    "verdict",
    "views",
)

if TYPE_CHECKING:
    from assay import attacks as attacks
    from assay import augment as augment
    from assay import check as check
    from assay import claims as claims
    from assay import comparison as comparison
    from assay import compression as compression
    from assay import data as data
    from assay import diagnostics as diagnostics
    from assay import errors as errors
    from assay import evaluate as evaluate
    from assay import fixes as fixes
    from assay import lowrank as lowrank
    from assay import models as models
    from assay import records as records
    from assay import report as report
    from assay import testing as testing
    from assay import tracing as tracing
    from assay import training as training
    from assay import verdict as verdict
    from assay import views as views
    from assay.attacks import APGD as APGD
    from assay.attacks import FAB as FAB
    from assay.attacks import FGSM as FGSM
    from assay.attacks import PGD as PGD
    from assay.attacks import AdaptiveAttack as AdaptiveAttack
    from assay.attacks import AttackResult as AttackResult
    from assay.attacks import MinimumNorm as MinimumNorm
    from assay.attacks import SignedSteps as SignedSteps
    from assay.attacks import Square as Square
    from assay.attacks import StandardAttack as StandardAttack
    from assay.attacks import Threat as Threat
    from assay.attacks import attack as attack
    from assay.attacks import list_attacks as list_attacks
    from assay.attacks import measure_attack_sanity as measure_attack_sanity
    from assay.attacks import measure_epsilon_curve as measure_epsilon_curve
    from assay.attacks import measure_robust_accuracy as measure_robust_accuracy
    from assay.check import run_check as run_check
    from assay.claims import run_claims as run_claims
    from assay.comparison import compare as compare
    from assay.compression.run import compress as compress
    from assay.data.dataset import ImageDataset as ImageDataset
    from assay.data.sources import load_dataset as load_dataset
    from assay.diagnostics.batchnorm import audit_normalization as audit_normalization
    from assay.diagnostics.depth import measure_gradient_flow as measure_gradient_flow
    from assay.diagnostics.invariance import measure_invariance as measure_invariance
    from assay.diagnostics.modes import audit_modes as audit_modes
    from assay.diagnostics.saliency import measure_input_gradients as measure_input_gradients
    from assay.errors import AssayError as AssayError
    from assay.errors import DataError as DataError
    from assay.errors import InputError as InputError
    from assay.errors import ModelError as ModelError
    from assay.errors import OptionError as OptionError
    from assay.evaluate import measure_clean_accuracy as measure_clean_accuracy
    from assay.lowrank.factorization import factorize as factorize
    from assay.lowrank.spectrum import measure_spectra as measure_spectra
    from assay.models.anatomy import measure_anatomy as measure_anatomy
    from assay.models.sources import load_model as load_model
    from assay.records.accuracy import CleanAccuracy as CleanAccuracy
    from assay.records.attack import RobustAccuracy as RobustAccuracy
    from assay.records.checkup import Checkup as Checkup
    from assay.records.comparison import Comparison as Comparison
    from assay.records.finding import Verdict as Verdict
    from assay.records.reading import read_checkup as read_checkup
    from assay.report.check_page import render_page as render_page
    from assay.tracing.depth import trace as trace
    from assay.training.classifier import train_classifier as train_classifier
    from assay.training.loop import fit as fit
    from assay.training.recipes import Recipe as Recipe
    from assay.training.recipes import load_recipe as load_recipe
    from assay.verdict import judge as judge

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
