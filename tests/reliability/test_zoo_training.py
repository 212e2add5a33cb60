"""Every awkward model is trained, or refused in one line with nothing written; statistics are measured or refused."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch

from assay.errors import AssayError, DivergedError
from assay.training.averaging import refresh_batchnorm
from assay.training.loop import fit
from assay.training.recipes import Recipe
from awkward_zoo import CASES, TRAINING, pictures

RECIPE = Recipe.parse(
    {"name": "two steps", "epochs": 1, "batch_size": 6, "augment": {"name": "none"}, "refresh_batchnorm": 12}
)


# One in four, of all kinds, for they stand in the table by kind; the others are in the full set.
EVERY = [pytest.param(name, marks=pytest.mark.full if place % 4 else ()) for place, name in enumerate(CASES)]


@pytest.mark.parametrize("name", EVERY)
def test_a_model_is_trained_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    case, folder = CASES[name], tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.build()
        try:
            run = fit(model, pictures(case.classes), recipe=RECIPE, out=folder)
        except DivergedError as error:  # its outputs are not finite: the layer is named, and the folder has begun
            assert "\n" not in str(error)
            return
        except AssayError as error:
            assert "\n" not in str(error)
            assert "expected" in str(error)
            assert not folder.exists()
            return
    assert not case.cannot & {TRAINING}
    assert math.isfinite(run.epochs[-1].loss)
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize("name", EVERY)
def test_statistics_are_measured_or_refused_and_nothing_else_changes(name: str) -> None:
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.build()
        model.eval()
        try:
            refresh_batchnorm(model, pictures(case.classes))
        except AssayError as error:
            assert "\n" not in str(error)
    assert not any(module.training for module in model.modules() if not isinstance(module, torch.jit.ScriptModule))
