"""The verbs on programs in files: what can be measured is, what cannot is one line with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from assay.check.attempt import find_way_out
from assay.errors import ModelError

Run = Callable[..., object]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network for the digits, untrained, as a program of each kind."""
    folder = tmp_path_factory.mktemp("programs")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10)).eval()
    images = torch.rand(2, 1, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images,), folder / "net.onnx", dynamo=False)
        torch.jit.save(torch.jit.script(network), folder / "net.ts")
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(folder / "net.onnx", folder / "quantised.onnx")
    return folder


def test_a_converted_program_is_attacked_traced_and_compressed(assay: Run, files: Path, tmp_path: Path) -> None:
    common = ("--data", "digits", "--limit", 40)
    ended = assay("attack", files / "net.onnx", *common, "--steps", 2, "--no-sanity")
    assert ended.code == 0 and "was converted to torch" in ended.err and "images of the data" in ended.err
    ended = assay("trace", files / "net.onnx", *common, "--steps", 1)
    assert ended.code == 0 and "Conv2d" in ended.out
    out = tmp_path / "out"
    ended = assay("compress", files / "net.onnx", *common, "--out", out, "--attack", "none", "--curve", "none")
    assert ended.code == 0
    opened = f"{files / 'net.onnx'} --weights {out / 'model.safetensors'}"
    assert f"assay check {opened}" in ended.out
    assert assay("anatomy", *opened.split()).code == 0


def test_what_a_program_cannot_do_is_one_line(assay: Run, files: Path, tmp_path: Path) -> None:
    common = ("--data", "digits", "--limit", 40)
    forward = "expected a model with gradients, got a program that runs forward only, in onnxruntime"
    for words in (("attack", "--steps", 2, "--no-sanity"), ("trace", "--steps", 1)):
        ended = assay(words[0], files / "quantised.onnx", *common, *words[1:])
        assert ended.code == 2 and ended.err.count("assay: ") == 1 and forward in ended.err
    ended = assay("attack", files / "quantised.onnx", *common, "--attack", "noise", "--no-sanity")
    assert ended.code == 0 and "robust accuracy" in ended.out
    for name in ("quantised.onnx", "net.ts"):
        ended = assay("compress", files / name, *common, "--out", tmp_path / name, "--trust-code")
        assert ended.code == 2 and "layers that can be factorised, got none" in ended.err
        assert not (tmp_path / name / "model.safetensors").exists()
    ended = assay("trace", files / "net.ts", *common, "--steps", 1, "--trust-code")
    assert ended.code == 2 and "got a TorchScript program, whose layers cannot be followed in training" in ended.err
    assert assay("trace", files / "net.ts", *common, "--steps", 0, "--trust-code").code == 0
    ended = assay("trace", files / "net.ts", *common)
    assert ended.code == 2 and "--trust-code" in ended.err and "may call any operator of torch" in ended.err
    ended = assay("anatomy", files / "net.onnx", "--data", "cifar10-like.npz")
    assert ended.code == 2
    ended = assay("anatomy", files / "quantised.onnx")
    assert ended.code == 2 and "a model that torch runs on the images" in ended.err
    way_out = find_way_out(
        ModelError("net.onnx", expected="a model with gradients", got="a program that runs forward only")
    )
    assert "--attack square" in way_out
    unseen = ModelError("model(images)", expected="a model that torch runs on the images", got="logits from elsewhere")
    assert find_way_out(unseen).startswith("Take the network itself in place of the program")
