"""Every verb on awkward models: what it measured or one line, an exit code of its own, and nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awkward_zoo import pictures

MODELS = """
from awkward_zoo import CASES

squeezes = CASES["squeezes"].build
half = CASES["float16"].build
failing = CASES["KeyError in forward"].build
backward = CASES["in-place in backward"].build
several = CASES["dict always"].build
fixed = CASES["fixed batch of 8"].build
recurrent = CASES["GRU over rows"].build
"""
MEASURED, FOUND, REFUSED, LACKS = 0, 1, 2, 4
VERBS: dict[str, tuple[str, ...]] = {
    "attack": ("--attack", "fgsm"),
    "trace": ("--steps", "1"),
    "look": ("--sample", "1"),
    "anatomy": (),
    "groups": (),
    "compress": ("--calibration", "8", "--batch", "2", "--robust-images", "4", "--max-drop", "99", "--curve", "none"),
    "check": ("--budget", "quick"),
}
WRITES = {"trace", "look", "compress", "check"}
# What each model must end with; any code of a verb that is not named here, but for a fault of ours.
CODES: dict[tuple[str, str], set[int]] = {
    **{("squeezes", verb): {MEASURED, FOUND} for verb in VERBS},
    **{("half", verb): {MEASURED, FOUND} for verb in VERBS if verb != "trace"},  # it trains in half of float32 only
    **{("failing", verb): {REFUSED} for verb in VERBS if verb != "groups"},  # whose weights are there
    **{("several", verb): {MEASURED, FOUND} for verb in VERBS},  # the logits are found in its dict
    **{("backward", verb): {REFUSED} for verb in ("attack", "trace", "look", "compress")},
    ("backward", "check"): {FOUND, LACKS},
    ("backward", "anatomy"): {MEASURED},
}
QUICK = [(model, verb) for model in ("failing", "backward") for verb in VERBS if verb not in {"check", "compress"}]
QUICK += [
    ("squeezes", "look"),
    ("several", "compress"),
    ("half", "attack"),
    ("backward", "check"),
    ("failing", "check"),
]
NAMES = [line.split(" =")[0] for line in MODELS.splitlines() if " = " in line]
ALL = [
    pytest.param(model, verb, marks=() if (model, verb) in QUICK else pytest.mark.full)
    for model in NAMES
    for verb in VERBS
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = pictures()
    np.savez(tmp_path / "made.npz", images=data.images.permute(0, 2, 3, 1).numpy(), labels=data.labels.numpy())
    (tmp_path / "awkward.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("model", "verb"), ALL)
def test_a_verb_measures_or_refuses_in_one_line(folder: Path, assay: Callable[..., Any], model: str, verb: str) -> None:
    before = set(folder.rglob("*"))
    out = ("--out", folder / "new" / "out") if verb in WRITES else ()
    ended = assay(verb, f"awkward.py:{model}", "--data", "made.npz", *VERBS[verb], *out)
    assert ended.code in CODES.get((model, verb), {MEASURED, FOUND, REFUSED, LACKS}), ended.err
    assert "Traceback" not in ended.err + ended.out
    if ended.code == REFUSED:
        line = ended.err.strip().splitlines()[-1]
        assert re.match(r"\S.*: .*expected .*, got ", line), ended.err
        left = {path for path in set(folder.rglob("*")) - before if "__pycache__" not in path.parts}
        assert not left, f"half-written: {left}"


@pytest.mark.full
def test_checks_of_awkward_models_are_compared(folder: Path, assay: Callable[..., Any]) -> None:
    for model in ("squeezes", "backward"):
        assay("check", f"awkward.py:{model}", "--data", "made.npz", "--budget", "quick", "--out", folder / model)
    checks = (folder / model / "check.json" for model in ("squeezes", "backward"))
    ended = assay("compare", *checks, "--out", folder / "both")
    assert ended.code in {MEASURED, FOUND}, ended.err
    assert (folder / "both" / "compare.html").exists()
