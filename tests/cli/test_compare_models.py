"""`assay compare MODEL MODEL2`: one page and one verdict, from the command line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from assay.models.programs.classifier import ProgramClassifier, in_own_runtime
from assay.models.sources import load_model
from assay.records.comparison import Comparison
from assay.records.model_comparison import ModelComparison
from assay.report.models_page import render_models

Run = Callable[..., Any]

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, bias=0.0):
        super().__init__()
        self.features = nn.Conv2d(1, 2, 8)
        self.head = nn.Flatten()
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.weight[0, 0, :4], self.features.weight[1, 0, 4:] = 1.0, 1.0
            self.features.bias.copy_(torch.tensor([0.0, bias]))

    def forward(self, x):
        return self.head(self.features(x))


class Fails(Net):
    def forward(self, x):
        raise ValueError("no such operator")


class Forward(Net):
    def forward(self, x):
        if x.requires_grad:
            raise ValueError("no gradient today")
        return super().forward(x)


def forward():
    return Forward().eval()


def good():
    return Net().eval()


def half():
    return Net().bfloat16().eval()


def biased():
    return Net(200.0).eval()


def spoiled():
    return Net(float("nan")).eval()


def fails():
    return Fails().eval()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``net.py`` and ``x.npz``: 400 pictures of which the upper or the lower half is brighter."""
    random = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    labels = np.arange(400) % 2
    images = random.integers(0, 200, (400, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 55
    np.savez(tmp_path / "x.npz", x_test=images, y_test=labels)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def compare(assay: Run, *words: object) -> Any:
    return assay("compare", *words, "--data", "x.npz", "--out", "out", "--limit", 6)


def read(place: Path) -> ModelComparison:
    return ModelComparison.model_validate_json((place / "out" / "models.json").read_text())


def test_what_failed_is_seen_by_the_exit_code(place: Path, assay: Run) -> None:
    ended = compare(assay, "net.py:good", "net.py:forward")
    assert ended.code == 4, ended.err
    assert "no gradient today" in " ".join(ended.out.split()) and (place / "out" / "compare.html").is_file()


def test_two_models_get_a_verdict_and_a_page(place: Path, assay: Run) -> None:
    ended = compare(assay, "net.py:good", "net.py:half")
    assert ended.code == 0, ended.err
    assert "net.py:half is the same model as net.py:good for all practical purposes" in " ".join(ended.out.split())
    compared = read(place)
    (pair,) = compared.pairs
    assert (compared.n, pair.equivalence.margin, pair.agreement.n) == (400, 0.01, 400)
    assert [layer.name for layer in pair.layers] == ["features", "head"]
    assert {transfer.attacked for transfer in pair.transfers} == {6}
    page = (place / "out" / "compare.html").read_text()
    assert page == render_models(compared)
    for title in ("Is it the same model?", "Which images flipped", "Where it arises", "Latency", "How this was"):
        assert title in page
    assert not (place / "out" / "compare.json").exists()


@pytest.mark.parametrize(("fail_on", "code"), [("never", 0), ("regression", 1), ("different", 1)])
def test_what_is_not_the_same_fails_on_demand(place: Path, assay: Run, fail_on: str, code: int) -> None:
    ended = compare(assay, "net.py:good", "net.py:half", "net.py:biased", "--fail-on", fail_on)
    assert ended.code == code, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith(f"{fail_on}: ")]
    assert len(lines) == code
    assert all("net.py:biased" in line for line in lines)
    verdicts = [pair.equivalence.verdict for pair in read(place).pairs]
    assert verdicts == ["same", "different"]


def test_too_few_images_are_told_and_a_wider_margin_settles_it(place: Path, assay: Run) -> None:
    words = ("net.py:good", "net.py:good", "--fail-on", "different", "--margin")
    narrow = compare(assay, *words, "0.5")
    assert narrow.code == 1
    assert "400 images do not show that its accuracy is within 0.5 points" in " ".join(narrow.out.split())
    assert "about 598 images would settle it" in " ".join(narrow.out.split())
    assert compare(assay, *words, 2).code == 0
    assert [read(place).reference.name, read(place).pairs[0].candidate] == ["net.py:good", "net.py:good (1)"]


def test_a_budget_compares_the_checks_as_well(place: Path, assay: Run) -> None:
    ended = compare(assay, "net.py:good", "net.py:biased", "--budget", "quick", "--fail-on", "regression")
    assert ended.code == 1, ended.err
    checks = Comparison.model_validate_json((place / "out" / "compare.json").read_text())
    assert checks.versus[0].differences[0].change == "worse"
    assert read(place).pairs[0].equivalence.verdict == "different"
    page = (place / "out" / "compare.html").read_text()
    assert "Is it the same model?" in page and "Verdicts side by side" in page
    assert compare(assay, "net.py:good", "net.py:biased").code == 0
    assert not (place / "out" / "compare.json").exists()  # it would be taken for a part of this comparison
    # from then on the checks can be compared without the models, and what was said of these goes
    assert assay("compare", "out/check-1", "out/check-2", "--out", "out").code == 0
    assert not (place / "out" / "models.json").exists()
    for words in (("--margin", 1), ("--fail-on", "different")):
        ended = assay("compare", "out/check-1", "net.py:good", "--data", "x.npz", *words)
        assert ended.code == 2
        assert "expected models alone, got a check, out/check-1" in ended.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("net.py:good", "net.py:fails"), "assay: net.py:fails: model(images): expected a model that takes images"),
        (("net.py:good", "net.py:spoiled"), "assay: net.py:spoiled: features.bias: expected finite numbers"),
        (("net.py:good", "net.py:none"), "assay: net.py:none"),
        (("net.py:good", "net.py:half", "--margin", "0"), "assay: --margin: expected percentage points, above 0"),
        (("net.py:good", "net.py:half", "--margin", "nan"), "assay: --margin: expected percentage points, above 0"),
        (("net.py:good",), "assay: compare: expected two checks or models, or more, got 1"),
    ],
)
def test_what_cannot_be_compared_is_one_line(place: Path, assay: Run, words: tuple[str, ...], told: str) -> None:
    ended = compare(assay, *words)
    assert ended.code == 2
    assert next(line for line in ended.err.splitlines() if line.startswith("assay: ")).startswith(told)
    assert not (place / "out" / "models.json").exists()
    assert not (place / "out").exists() or not any((place / "out").iterdir())


def test_run_folders_bring_their_data_each_in_its_own_preparation(place: Path, assay: Run) -> None:
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (place / "pets" / name).mkdir(parents=True)
        for i in range(6):
            pixels = draws.integers(0, 256, (9, 9), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "pets" / name / f"{i}.png")
    for size in (8, 6):
        train = ("train", "pets", "--model", "mlp", "--image-size", size, "--set", "epochs=1", "--out", f"run{size}")
        assert assay(*train, "--set", "augment.name=none").code == 0
    ended = assay("compare", "run8", "run6", "net.py:good", "--out", "out", "--limit", 4)
    assert ended.code == 0, ended.err
    compared = read(place)
    assert compared.n == 12
    assert [model.image_shape for model in (compared.reference, *compared.candidates)] == [
        (1, 8, 8),
        (1, 6, 6),
        (1, 8, 8),
    ]
    assert "note: net.py:good is given the data that run8 was made from" in ended.err
    other, same = compared.pairs
    assert {each.measurement for each in other.failures} == {"layers", "adversarial images"}
    assert "8x8" in other.failures[0].reason and "6x6" in other.failures[0].reason
    assert len(same.transfers) == 2


@pytest.fixture
def exported(place: Path) -> Path:
    """The same network as ONNX, for one image at a time, and quantised."""
    scope: dict[str, Any] = {}
    exec(NET, scope)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(scope["good"](), (torch.rand(1, 1, 8, 8),), place / "net.onnx", dynamo=False)
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(place / "net.onnx", place / "quantised.onnx")
    return place


def test_an_export_runs_in_its_own_runtime(exported: Path, assay: Run) -> None:
    ended = compare(assay, "net.py:good", "net.onnx", "quantised.onnx")
    assert ended.code == 0, ended.err
    plain, quantised = read(exported).pairs
    assert plain.equivalence.verdict == "same"
    assert {each.source for each in plain.transfers} == {"net.py:good", "net.onnx"}
    notes = " ".join(read(exported).candidates[0].notes)
    assert "outputs and latency are those of onnxruntime" in notes
    assert "onnxruntime is given 1 image at a time" in notes
    assert {each.source for each in quantised.transfers} == {"net.py:good"}
    assert "runs forward only" in " ".join(each.reason for each in quantised.failures)


def test_a_converted_program_is_called_as_it_is_for_the_length_of_a_block(exported: Path) -> None:
    model = load_model("net.onnx", classes=2, image_shape=(1, 8, 8))
    program = next(each for each in model.modules() if isinstance(each, ProgramClassifier))
    assert program.original is not None
    calls: list[int] = []
    program.original = type(program.original)(lambda images: calls.append(len(images)) or images.flatten(1), 1)
    images = torch.rand(3, 1, 8, 8)
    plain = model(images)
    with in_own_runtime(model) as programs:
        assert len(programs) == 1
        assert torch.equal(model(images), images.flatten(1))
    assert calls == [3]
    assert torch.equal(model(images), plain)
    with in_own_runtime(torch.nn.Linear(2, 2)) as programs:
        assert programs == ()
