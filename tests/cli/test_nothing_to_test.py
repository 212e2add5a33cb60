"""Random weights, training images, a size no pixel has: seen on the page, in the headline and in the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from assay.cli.inputs import open_inputs
from assay.cli.main import app
from assay.cli.options import Inputs
from assay.errors import OptionError
from assay.records.provenance import Provenance


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def check(model: object, out: Path, *more: object) -> tuple[int, str, dict[str, str]]:
    code, text = run("check", model, "--data", "digits", "--budget", "quick", "--limit", 8, "--out", out, *more)
    verdicts = json.loads((out / "check.json").read_text())["verdicts"]
    return code, text, {verdict["rule"]: verdict["status"] for verdict in verdicts}


def test_random_weights_are_told_over_the_numbers(tmp_path: Path) -> None:
    code, text, statuses = check("mlp", tmp_path / "random")
    assert code == 1
    assert "\nRandom weights: " in text
    assert statuses["A107"] == "error"
    assert {statuses[rule] for rule in ("A201", "A202", "A203", "A301", "A302", "A303", "A102")} == {"not run"}
    page = (tmp_path / "random" / "report.html").read_text()
    assert "Random weights: no number here tells how good the model is" in page
    verdicts = json.loads((tmp_path / "random" / "check.json").read_text())["verdicts"]
    shown = next(verdict["command"] for verdict in verdicts if verdict["rule"] == "A101")
    assert shown == "assay check mlp --data digits"


def test_a_run_tested_on_its_training_images_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    quick = ("--model", "mlp", "--set", "epochs=1", "--limit", 50, "--no-test")
    assert run("train", "digits", *quick, "--out", folder)[0] == 0
    told = {}
    for split in ("train", "test"):
        opened = open_inputs(Inputs(model=str(folder), split=split), Console(quiet=True))
        told[split] = next(record for record in opened.history if isinstance(record, Provenance))
    assert told["train"] == Provenance(random="none", trained_on="digits", tested_on_training=True)
    assert told["test"] == Provenance(random="none", trained_on="digits", tested_on_training=False)


@pytest.mark.parametrize(
    ("epsilon", "hint"), [("8", ": did you mean 8/255?"), ("1.5", ": did you mean 1.5/255?"), ("300", "")]
)
@pytest.mark.parametrize("words", [("attack", "mlp"), ("look", "mlp", "--sample", 0, "--attack", "pgd")])
def test_a_size_beyond_the_range_of_a_pixel_is_refused(words: tuple[object, ...], epsilon: str, hint: str) -> None:
    with pytest.raises(OptionError) as refused:
        run(*words, "--data", "digits", "--limit", 4, "--epsilon", epsilon)
    assert str(refused.value) == (f"--epsilon: expected at most 1 under L∞, the range of a pixel{hint}, got {epsilon}")


def test_in_another_norm_a_size_above_1_is_a_size(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    words = ("--norm", "l2", "--epsilon", 2, "--no-sanity", "--steps", 2, "--json", path)
    assert run("attack", "mlp", "--data", "digits", "--limit", 4, *words)[0] == 0
