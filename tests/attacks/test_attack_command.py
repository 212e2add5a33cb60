"""``assay attack`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from assay.cli.attack import parse_fraction
from assay.cli.main import app
from assay.errors import AssayError, OptionError

FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """MODEL and --data of a small random network and 40 random images."""
    (tmp_path / "net.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 4)
    return [f"{tmp_path / 'net.py'}:build", "--data", str(tmp_path / "data.npz")]


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["attack", *words], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_it_prints_the_result_and_writes_the_records(words, tmp_path):
    file = tmp_path / "records.json"
    printed = run(*words, "--attack", "pgd", "--steps", "3", "--epsilon", "4/255", "--curve", "--json", str(file))
    records = {record["kind"]: record for record in json.loads(file.read_text())}
    assert set(records) == {"robust_accuracy", "attack_anatomy", "epsilon_curve", "attack_sanity"}
    robust = records["robust_accuracy"]
    assert robust["epsilon"] == pytest.approx(4 / 255)
    assert robust["steps"] == 3
    assert f"{100 * robust['accuracy']:.2f} %" in printed
    assert "within L∞ 4/255" in printed
    assert "mean loss" in printed
    assert "turned into: " in printed
    assert "SSIM 0." in printed
    assert "checks of the attack itself" in printed


def test_a_run_folder_brings_its_own_images(tmp_path):
    out = str(tmp_path / "run")
    trained = CliRunner().invoke(
        app, ["train", "digits", "--limit", "60", "--set", "epochs=1", "--no-test", "--out", out]
    )
    assert trained.exit_code == 0, trained.output
    assert "n = 20" in run(out, "--attack", "fgsm", "--limit", "20", "--no-sanity")


def test_kept_results_are_resumed(words, tmp_path):
    out = tmp_path / "kept"
    first = run(*words, "--attack", "fgsm", "--no-sanity", "--out", str(out))
    again = run(*words, "--attack", "fgsm", "--no-sanity", "--out", str(out), "--resume")
    assert (out / "part-00000.parquet").is_file()
    assert first == again


def test_a_target_leaves_its_own_images_out_and_is_named(words, tmp_path):
    file = tmp_path / "records.json"
    printed = run(*words, "--epsilon", "0.5", "--target", "2", "--no-sanity", "--json", str(file))
    record = json.loads(file.read_text())[0]
    assert record["n"] == 30
    assert record["target"] == "2"
    assert record["correct_after_rounding"] is None
    assert ", into 2" in printed


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--epsilon", "8/x"], "--epsilon: expected a number or a fraction such as 8/255, got '8/x'"),
        (["--epsilon=-1/255"], "epsilon: expected a finite number of at least 0"),
        (["--norm", "l7"], "norm: expected one of linf, l2, l1, got 'l7'"),
        (["--attack", "magic"], "attack: expected one of fgsm, pgd"),
        (["--attack", "fgsm", "--steps", "3"], "--steps: expected one of loss for fgsm, got 'steps=3'"),
        (["--step-size", "0"], "--step-size: expected a number or a fraction such as 2/255, above 0, or none, got '0'"),
        (["--target", "frog"], "--target: expected one of 0, 1, 2, 3, got 'frog'"),
        (["--target", "1", "--curve"], "--target: expected a run without --out and --curve"),
        (["--shard", "0/2"], "--out: expected a folder to keep the results in, got nothing"),
        (["--shard", "2/2", "--out", "x"], "shard: expected i/n with 0 <= i < n, got 2/2"),
        (["--precision", "fp8"], "precision: expected auto, float32 or bfloat16, got 'fp8'"),
        (["--resume"], "--out: expected a folder to keep the results in, got nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line(words, extra, message):
    with pytest.raises(AssayError) as caught:
        run(*words, *extra)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.5", 0.5), ("1e-3", 1e-3), ("3 / 4", 0.75)])
def test_fractions(text, value):
    assert parse_fraction(text, where="--epsilon") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "a", "1/0", "1/2/3"])
def test_not_fractions(text):
    with pytest.raises(OptionError, match="--epsilon: expected a number or a fraction"):
        parse_fraction(text, where="--epsilon")
