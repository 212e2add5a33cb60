"""assay: put a classifier to the test. Train it, break it, see why.

>>> import assay
>>> data = assay.load_dataset("digits")
>>> model = assay.load_model("runs/digits", classes=10, image_shape=data.shape)  # or any nn.Module of yours
>>> checkup = assay.run_check(model, data)
>>> [verdict.claim for verdict in checkup.verdicts if verdict.status == "error"]

The names below load their modules when first used, so that ``import assay`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.attacks.engine import attack
    from assay.attacks.measure import measure_epsilon_curve, measure_robust_accuracy
    from assay.check import run_check
    from assay.data.dataset import ImageDataset
    from assay.data.sources import load_dataset
    from assay.errors import AssayError, InputError
    from assay.evaluate import measure_clean_accuracy
    from assay.models.sources import load_model
    from assay.records.checkup import Checkup
    from assay.report.page import render_page
    from assay.training.loop import fit
    from assay.training.recipes import load_recipe
    from assay.verdict import judge

_HOMES = {
    "AssayError": "assay.errors",
    "Checkup": "assay.records.checkup",
    "ImageDataset": "assay.data.dataset",
    "InputError": "assay.errors",
    "attack": "assay.attacks.engine",
    "fit": "assay.training.loop",
    "judge": "assay.verdict",
    "load_dataset": "assay.data.sources",
    "load_model": "assay.models.sources",
    "load_recipe": "assay.training.recipes",
    "measure_clean_accuracy": "assay.evaluate",
    "measure_epsilon_curve": "assay.attacks.measure",
    "measure_robust_accuracy": "assay.attacks.measure",
    "render_page": "assay.report.page",
    "run_check": "assay.check",
}

__all__ = [
    "AssayError",
    "Checkup",
    "ImageDataset",
    "InputError",
    "attack",
    "fit",
    "judge",
    "load_dataset",
    "load_model",
    "load_recipe",
    "measure_clean_accuracy",
    "measure_epsilon_curve",
    "measure_robust_accuracy",
    "render_page",
    "run_check",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'assay' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
