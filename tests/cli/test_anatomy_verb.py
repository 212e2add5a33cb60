from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from assay.models.anatomy import measure_anatomy
from assay.models.architectures import build
from assay.records.anatomy import Anatomy
from assay.wording import compact

Assay = Callable[..., "tuple[int, str, str]"]


def test_json_is_the_record_and_nothing_else(assay: Assay) -> None:
    code, out, err = assay("anatomy", "resnet20", "--json")
    model = build("resnet20", classes=10, image_shape=(3, 32, 32))
    assert code == 0
    assert Anatomy.model_validate_json(out) == measure_anatomy(model, image_shape=(3, 32, 32), name="resnet20")
    assert err == "note: resnet20 has random weights: nothing was trained and nothing loaded\n"


@pytest.mark.parametrize("width", [60, 80, 130])
def test_the_table_fits_the_terminal_and_shows_numbers_in_full(
    width: int, assay: Assay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = assay("anatomy", "torchvision:vit_b_32,image_size=32", "--image-shape", "3,32,32", "--classes", "10")
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    if width >= 80:
        assert "2,362,368" in out
        assert re.search(r"total +87,\d{3},\d{3} +\d+\u00a0M", out)
    assert ("share" in out) == (width > 110)


def test_every_layer_total_and_block_is_shown(assay: Assay) -> None:
    _, out, _ = assay("anatomy", "resnet20,shortcut=B", "--image-shape", "1x28x28", "--classes", "7")
    record = measure_anatomy(
        build("resnet20", classes=7, image_shape=(1, 28, 28), options={"shortcut": "B"}), image_shape=(1, 28, 28)
    )
    first_words = [line.split()[0] for line in out.splitlines() if line.strip()]
    for layer in record.layers:
        assert layer.name in first_words
    assert "1 × 28 × 28 image → 7 outputs" in out
    assert f"{record.parameters:,} parameters" in out
    assert f"{compact(record.flops)} FLOPs an image" in out
    assert "20 weight layers" in out
    assert "7 × basic, identity skip, post-activation" in out
    assert "2 × basic, projection skip, post-activation, downsampling" in out
    assert "layer2.0, layer3.0" in out


def test_a_run_folder_brings_its_own_shape(assay: Assay, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = build("mlp", classes=3, image_shape=(1, 6, 7), options={"width": 5})
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    described = {"name": "mlp", "classes": ["a", "b", "c"], "image_shape": [1, 6, 7], "options": {"width": 5}}
    (tmp_path / "config.json").write_text(json.dumps({"schema_version": 1, "model": described}))
    code, out, err = assay("anatomy", tmp_path, "--json")
    found = Anatomy.model_validate_json(out)
    assert (code, err, found.input_shape, found.classes) == (0, "", (1, 6, 7), 3)


def test_a_data_set_gives_shape_and_classes(assay: Assay, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "x.npz", images=np.zeros((4, 12, 14, 3), np.uint8), labels=np.array([0, 1, 2, 0]))
    code, out, _ = assay("anatomy", "allcnn", "--data", tmp_path / "x.npz", "--json")
    found = Anatomy.model_validate_json(out)
    assert (code, found.input_shape, found.classes) == (0, (3, 12, 14), 3)


def test_names_in_brackets_are_not_markup(assay: Assay, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def f():\n"
        "    return nn.Sequential(nn.Flatten(), nn.ModuleDict({'[red]x[/]': nn.Linear(12, 2)})['[red]x[/]'])\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.add_module('[bold]layer', nn.Linear(12, 2))\n"
        "    def forward(self, x):\n"
        "        return self.get_submodule('[bold]layer')(x.flatten(1))\n"
    )
    code, out, _ = assay("anatomy", f"{tmp_path / 'nets.py'}:Odd", "--image-shape", "3,2,2")
    assert code == 0
    assert "[bold]layer" in out


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["resnet21"], "got 'resnet21' (did you mean resnet20?)"),
        (["resnet20", "--weights", "none.pt"], "none.pt: expected a file of weights, got no such file"),
        (
            ["resnet20", "--image-shape", "3,32"],
            "--image-shape: expected three sizes C,H,W such as 3,32,32, got '3,32'",
        ),
        (["resnet20", "--image-shape", "3,0,32"], "--image-shape: expected sizes of at least 1, got '3,0,32'"),
        (["resnet20", "--classes", "1"], "--classes"),
        (
            ["resnet20", "--data", "digits", "--classes", "3"],
            "--data: expected either it, or --image-shape and --classes",
        ),
        (["allcnn", "--image-shape", "3,8,8"], "allcnn: expected images of at least 9×9 pixels, got 8×8"),
        (["torchvision:resnet18", "--image-shape", "2,32,32"], "expected images of one or three channels"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments: list[str], fragment: str, assay: Assay) -> None:
    code, out, err = assay("anatomy", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("assay: ")
    assert err.count("\n") == 1
    assert fragment in err


def test_a_model_that_cannot_take_the_images_is_one_line(assay: Assay, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "w.pt")
    (tmp_path / "nets.py").write_text("from torch import nn\ndef f():\n    return nn.Linear(3, 3)\n")
    code, _, err = assay("anatomy", f"{tmp_path / 'nets.py'}:f", "--weights", tmp_path / "w.pt")
    assert code == 2
    assert err.startswith(
        "assay: model(images): expected a model that takes images of shape (N, 3, 32, 32), got Runtime"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (12_345, "12.3 k"),
        (999_499, "999 k"),
        (999_501, "1.00 M"),
        (81_763_584, "81.8 M"),
        (8_213_877_248, "8.21 G"),
        (5 * 10**13, "50.0 T"),
    ],
)
def test_compact_numbers_keep_three_digits(number: int, text: str) -> None:
    assert compact(number).replace("\u00a0", " ") == text
