"""Models compared from their names, and fixes from the command line, on pictures that a few weights can tell apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assay.models.sources import open_model
from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix, Comparison

Run = Callable[..., object]

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, bias, mean):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.norm.running_mean.fill_(mean)
        self.norm.running_var.fill_(0.08)
        self.head = nn.Linear(64, 2)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0, :32], self.head.weight[1, 32:] = 1.0, 1.0
            self.head.bias.copy_(torch.tensor([0.0, bias]))

    def forward(self, x):
        return self.head(self.norm(x).flatten(1))


def good():
    return Net(0.0, 0.45).eval()


def biased():
    return Net(200.0, 0.45).eval()


def stale():
    net = Net(0.0, 0.45).eval()
    net.norm.running_var.fill_(40.0)
    return net
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``net.py`` and ``x.npz``: the upper or the lower half is brighter."""
    random = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    arrays = {}
    for split, n in (("train", 80), ("test", 60)):
        labels = np.arange(n) % 2
        images = random.integers(0, 200, (n, 8, 8), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 * label : 4 * label + 4] += 55
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
    np.savez(tmp_path / "x.npz", **arrays)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def test_models_are_checked_first_and_then_compared(place: Path, assay: Run) -> None:
    models = ("net.py:good", "net.py:biased")
    options = ("--data", "x.npz", "--budget", "quick", "--limit", 6, "--out", "out")
    ended = assay("compare", *models, *options, "--fail-on", "regression")
    assert ended.code == 1, ended.err
    assert "net.py:biased is worse in clean accuracy" in " ".join(ended.out.split())
    comparison = Comparison.model_validate_json((place / "out" / "compare.json").read_text())
    clean = comparison.versus[0].differences[0]
    assert (clean.paired, clean.n, clean.change) == (True, 60, "worse")
    kept = Checkup.model_validate_json((place / "out" / "check-2" / "check.json").read_text())
    assert kept.subject.model == "net.py:biased"
    again = assay("compare", "out/check-1", "out/check-2/check.json", "--out", "again")
    assert again.code == 0


def test_a_model_without_data_is_one_line(place: Path, assay: Run) -> None:
    ended = assay("compare", "net.py:good", "net.py:biased")
    assert ended.code == 2
    assert (
        ended.err.strip() == "assay: --data: expected the images to test on, such as cifar10 or a folder, got nothing"
    )


def test_fixes_are_applied_measured_again_and_kept(place: Path, assay: Run) -> None:
    options = ("--data", "x.npz", "--budget", "quick", "--limit", 6, "--out", "out", "--fail-on", "never")
    ended = assay("check", "net.py:stale", *options, "--apply-fixes")
    assert ended.code == 0, ended.err
    assert "A511 fixed (statistics)" in ended.out
    checkup = Checkup.model_validate_json((place / "out" / "check.json").read_text())
    fix = next(record for record in checkup.each(AppliedFix) if record.rule == "A511")
    assert (fix.after, fix.weights) == ("pass", "fixed/model.safetensors")
    assert "80 images of x.npz, train" in fix.applied
    assert not (place / "out" / "fixed" / "config.json").exists()  # a folder names no code to run
    weights = place / "out" / "fixed" / "model.safetensors"
    opened = open_model("net.py:stale", weights=weights, classes=2, image_shape=(1, 8, 8)).model
    assert float(opened.state_dict()["norm.running_var"]) == pytest.approx(0.06, abs=0.03)


def test_a_missing_baseline_ends_the_check_before_any_work(place: Path, assay: Run) -> None:
    ended = assay("check", "net.py:good", "--data", "x.npz", "--baseline", "none.json", "--out", "out")
    assert ended.code == 2
    assert "none.json: expected a file of accepted findings, got no such file or directory" in ended.err
    assert not (place / "out").exists()
