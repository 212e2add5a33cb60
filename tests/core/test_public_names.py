"""The public surface is one pinned table, quick to import, and the same for type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import assay

PUBLIC = [
    "APGD",
    "AdaptiveAttack",
    "AssayError",
    "AttackResult",
    "Checkup",
    "CleanAccuracy",
    "Comparison",
    "DataError",
    "FAB",
    "FGSM",
    "ImageDataset",
    "InputError",
    "MinimumNorm",
    "ModelError",
    "OptionError",
    "PGD",
    "Recipe",
    "RobustAccuracy",
    "SignedSteps",
    "Square",
    "StandardAttack",
    "Threat",
    "Verdict",
    "as_dataset",
    "as_model",
    "attack",
    "audit_modes",
    "audit_normalization",
    "check_predictions",
    "compare",
    "compare_models",
    "compress",
    "factorize",
    "find_duplicates",
    "fit",
    "judge",
    "list_attacks",
    "load_dataset",
    "load_model",
    "load_recipe",
    "measure_anatomy",
    "measure_attack_sanity",
    "measure_clean_accuracy",
    "measure_epsilon_curve",
    "measure_gradient_flow",
    "measure_input_gradients",
    "measure_invariance",
    "measure_robust_accuracy",
    "measure_saliency_maps",
    "measure_spectra",
    "read_checkup",
    "read_predictions",
    "render_page",
    "run_check",
    "run_claims",
    "survey_pictures",
    "trace",
    "train_classifier",
]
PACKAGES = [
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
    "quality",
    "records",
    "report",
    "testing",
    "tracing",
    "training",
    "verdict",
    "views",
]


def test_the_public_names_are_these() -> None:
    assert assay.__all__ == PUBLIC
    assert dir(assay) == sorted([*PUBLIC, *PACKAGES])


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves_and_has_a_docstring(name: str) -> None:
    value = getattr(assay, name)
    assert value.__doc__
    assert value.__module__.startswith("assay.")


def test_packages_are_reachable_from_the_root_alone() -> None:
    code = f"import assay; print(*[getattr(assay, n).__name__ for n in {PACKAGES}], assay.attacks.Threat.__name__)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.split() == [*(f"assay.{name}" for name in PACKAGES), "Threat"]


def test_type_checkers_see_the_same_table() -> None:
    seen = {
        alias.asname: statement.module
        for block in ast.parse(Path(assay.__file__).read_text()).body
        if isinstance(block, ast.If)
        for statement in ast.walk(block)
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == {**assay._HOMES, **dict.fromkeys(PACKAGES, "assay")}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        assay.chek  # noqa: B018


@pytest.mark.parametrize(
    "module",
    [
        "assay",
        "assay.cli.main",
        "assay.records.checkup",
        "assay.verdict",
        "assay.report.check_page",
        "assay.report.terminal.check",
    ],
)
def test_import_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
