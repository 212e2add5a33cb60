"""The public surface is small, pinned, and quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import assay

PUBLIC = [
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


def test_the_public_names_are_these() -> None:
    assert assay.__all__ == PUBLIC
    assert dir(assay) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves_and_has_a_docstring(name: str) -> None:
    value = getattr(assay, name)
    assert value.__doc__
    assert value.__module__.startswith("assay.")


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
        "assay.report.page",
        "assay.report.terminal.check",
    ],
)
def test_import_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
