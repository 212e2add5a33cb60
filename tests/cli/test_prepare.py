"""The verbs read pictures as the model's source states, or as --prepare does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from torchvision.transforms.functional import pil_to_tensor

from assay.cli.inputs import open_inputs
from assay.cli.options import Inputs
from assay.errors import OptionError
from assay.models.sources import load_model
from assay.models.wrappers import ChannelsReversed

THEIRS = Compose([Resize(14, InterpolationMode.BICUBIC), CenterCrop((12, 10))])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for place in range(24):
        (tmp_path / "set" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (15 + place, 30 - place, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "ab"[place % 2] / f"{place:02}.png")
    return tmp_path / "set"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run on pictures of another set, which were resized and cropped."""
    folder = tmp_path / "run"
    folder.mkdir()
    network = load_model("mlp", classes=2, image_shape=(3, 12, 10), normalization=((0.5,) * 3, (0.25,) * 3))
    save_file(network.state_dict(), folder / "model.safetensors")
    model = {
        "name": "mlp", "classes": ["a", "b"], "image_shape": [3, 12, 10], "mean": [0.5] * 3, "std": [0.25] * 3,
        "preparation": {"resize": 14, "crop": [12, 10], "interpolation": "bicubic"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"schema_version": 1, "model": model}))
    return folder


def opened(**inputs: object) -> tuple[torch.Tensor, tuple[str, ...]]:
    result = open_inputs(Inputs(**inputs), Console(quiet=True))
    return result.dataset.images, result.notes


def test_the_models_own_preparation_holds_wherever_no_size_is_given(pictures: Path, run_folder: Path) -> None:
    images, notes = opened(model=str(run_folder), data=str(pictures))
    files = sorted(pictures.glob("*/*.png"), key=lambda path: path.name)
    assert torch.equal(images, torch.stack([pil_to_tensor(THEIRS(Image.open(file))) for file in files]))
    spelled = "resize=14:bicubic,crop=12x10,mean=0.5,std=0.25"
    assert notes == (f"pictures are prepared by {spelled} ({run_folder})",)
    other, notes = opened(model=str(run_folder), data=str(pictures), prepare="squash=12x10")
    assert other.shape == images.shape
    assert not torch.equal(other, images)
    assert notes == (f"pictures are prepared by squash=12x10,mean=0.5,std=0.25 (--prepare and {run_folder})",)


def test_an_architecture_with_another_preparation(pictures: Path) -> None:
    images, _ = opened(model="mlp", data=str(pictures), prepare="resize=14:bicubic,crop=12x10")
    assert images.shape == (24, 3, 12, 10)
    result = open_inputs(
        Inputs(model="mlp", data=str(pictures), image_size=8, prepare="bgr,mean=0.5,std=0.5"), Console(quiet=True)
    )
    assert result.dataset.shape == (3, 8, 8)
    assert isinstance(result.model, ChannelsReversed)
    with pytest.raises(OptionError, match="--image-size: expected either it or the sizes of --prepare, got both"):
        opened(model="mlp", data=str(pictures), image_size=8, prepare="crop=8")
    with pytest.raises(OptionError, match="--prepare: expected mean, std and scale in it, or a normalization beside"):
        opened(model="mlp", data=str(pictures), image_size=8, prepare="scale=255", normalization="none")


def test_a_check_prints_and_records_it(
    assay: Callable[..., object], pictures: Path, run_folder: Path, tmp_path: Path
) -> None:
    ended = assay("check", run_folder, "--data", pictures, "--budget", "quick", "--limit", "8", "--fail-on", "never",
                  "--out", tmp_path / "out")  # fmt: skip
    sentence = "Pictures of 10×12: resize=14:bicubic,crop=12x10,mean=0.5,std=0.25"
    assert sentence in " ".join(ended.out.split())
    records = json.loads((tmp_path / "out" / "check.json").read_text())["records"]
    audit = next(record for record in records if record["kind"] == "preparation_audit")
    assert (audit["preparation"], audit["not_tried"]) == ("resize=14:bicubic,crop=12x10,mean=0.5,std=0.25", "")
    assert "squashed, nothing cropped" in [each["name"] for each in audit["variants"]]
    assert "resize=14:bicubic,crop=12x10" in (tmp_path / "out" / "report.html").read_text()


def test_a_bad_preparation_is_one_line(assay: Callable[..., object], pictures: Path) -> None:
    ended = assay("check", "mlp", "--data", pictures, "--prepare", "size=3")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert ended.err.startswith("assay: --prepare: expected resize=256:bicubic")


def test_a_training_run_keeps_how_its_pictures_were_prepared(
    assay: Callable[..., object], pictures: Path, tmp_path: Path
) -> None:
    ended = assay("train", pictures, "--recipe", "digits", "--model", "mlp", "--set", "epochs=1", "--prepare",
                  "resize=14:bicubic,crop=12x10", "--out", tmp_path / "own", "--no-test")  # fmt: skip
    assert ended.code == 0, ended.err
    model = json.loads((tmp_path / "own" / "config.json").read_text())["model"]
    assert model["preparation"] == {
        "resize": 14, "crop": [12, 10], "interpolation": "bicubic", "source": "--prepare",
    }  # fmt: skip
    images, _ = opened(model=str(tmp_path / "own"))
    assert images.shape == (24, 3, 12, 10)
