from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from assay.cli.main import app
from assay.compression import network as candidates
from assay.compression.network import Latency
from assay.models.sources import load_model
from assay.records.compression import CompressionReport
from assay.report.compression_page import render_compression_page
from assay.report.lowrank_wording import find_wins

QUICK = ("--data", "digits", "--limit", "60", "--calibration", "64", "--robust-images", "8", "--batch", "8")


@pytest.fixture
def faster_when_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny layers never get faster: time is made to follow the work."""

    def by_parameters(modules: list[nn.Module], inputs: torch.Tensor, *, repeats: int = 0) -> tuple[Latency, ...]:
        sizes = [float(sum(p.numel() for p in m.parameters())) for m in modules]
        return tuple(Latency(size, size, size, size) for size in sizes)

    monkeypatch.setattr(candidates, "measure_latencies", by_parameters)


def test_a_folder_with_a_network_that_loads_its_record_and_its_page(
    tmp_path: Path, assay: Callable[..., Any], faster_when_smaller: None
) -> None:
    out = tmp_path / "small"
    done = assay("compress", "mlp", *QUICK, "--target", "0.8x", "--epochs", "0.5", "--curve", "0.25,0.5", "--out", out)
    assert done.code == 0, done.err
    assert "fewer FLOPs" in done.out and "κ" in done.out and "compression.html" in done.out
    report = CompressionReport.model_validate_json((out / "compression.json").read_text())
    assert report.after.flops <= 0.8 * report.before.flops
    assert report.after.robust is not None and report.after.robust.n == 8
    assert report.fine_tuning_seconds > 0 and report.compressed.n == report.after.clean.n == 60
    assert [point.share for point in report.curve] == [0.25, 0.25, 0.5, 0.5]
    replaced = [layer for layer in report.layers if layer.kind != "kept"]
    assert replaced and all(1 <= layer.condition_after < float("inf") for layer in replaced)
    page = (out / "compression.html").read_text()
    assert page.count('role="img"') == 2 * 3  # each for a wide column and for a phone
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page) and "default-src 'none'" in page
    assert all(layer.name in page for layer in report.layers)

    model = load_model(str(out))
    assert sum(p.numel() for p in model.parameters()) == report.after.parameters < report.before.parameters
    attacked = assay("attack", out, "--data", "digits", "--limit", "8", "--attack", "fgsm")
    assert attacked.code in {0, 1}, attacked.err
    again = assay("compress", out, *QUICK, "--out", out)
    assert again.code == 2 and "--out: expected a new folder, or --overwrite" in again.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "half"), "--target: expected a share of the FLOPs such as 0.6x, got 'half'"),
        (("--target", "1.5x"), "target: expected a share of the FLOPs between 0 and 1"),
        (("--target", "0.5x", "--max-drop", "1"), "target: expected a share of the FLOPs, or max_drop, got both"),
        (("--kinds", "cp"), "--kinds: expected some of linear, channel, spatial, tucker, got cp"),
        (("--curve", "0.5,2"), "--curve: expected shares in (0, 1]"),
        (("--target", "0.001x"), "target: expected at least"),
        (("--attack", "magic"), "got 'magic'"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_leaves_no_network(
    options: tuple[str, ...], message: str, tmp_path: Path, assay: Callable[..., Any], faster_when_smaller: None
) -> None:
    ended = assay("compress", "mlp", *QUICK, "--curve", "none", *options, "--out", tmp_path / "x")
    assert ended.code == 2 and message in ended.err and "Traceback" not in ended.err
    assert "weighing" not in ended.err or options == ("--target", "0.001x")
    assert not (tmp_path / "x" / "model.safetensors").exists()


def test_the_record_is_printed_as_json_and_names_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], faster_when_smaller: None
) -> None:
    app(
        ["compress", "mlp", *QUICK, "--max-drop", "20", "--curve", "none", "--attack", "none", "--json",
         "--out", str(tmp_path)],
        standalone_mode=False,
    )  # fmt: skip
    report = CompressionReport.model_validate(json.loads(capsys.readouterr().out))
    assert report.after.robust is None and report.curve == () and find_wins(report.curve) == (0, 0)
    page = render_compression_page(report.model_copy(update={"model": "<script>alert(1)</script>"}))
    assert page.count("<script") == 1 and "&lt;script&gt;" in page
