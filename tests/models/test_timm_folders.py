"""timm's models from folders and the hub: the logits of timm itself, what is kept for a run folder, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from assay.errors import ModelError
from assay.models.sources import find_blueprint, open_model
from assay.models.sources.blueprint import ModelRequest
from assay.models.sources.named import plan_named
from standin_hub import Hub, redirect, serve

NAMES = ("ant", "bee", "cat")
SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("timm") / "small, vit"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **SIZES)
        torch.nn.init.normal_(model.head.weight)
    published = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "input_size": (3, 16, 16), "crop_pct": 0.9}
    model.pretrained_cfg.update(published, label_names=list(NAMES), num_classes=3)
    timm.models.save_for_hf(model, place, model_args=SIZES, safe_serialization=True)
    return place


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as server:
        redirect(monkeypatch, address=server.address, cache=tmp_path / "cache")
        yield server


def expected_logits(folder: Path, images: torch.Tensor) -> torch.Tensor:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    with torch.no_grad():
        return model((images - mean) / std)


def test_a_folder_is_timms_own_model_with_its_names_and_preparation(folder: Path) -> None:
    opened = open_model(f"timm:local-dir:{folder}")
    images = torch.rand(2, 3, 16, 16)
    assert (opened.classes, opened.class_names, opened.image_shape) == (3, NAMES, (3, 16, 16))
    assert opened.preparation is not None
    assert (opened.preparation.resize, opened.preparation.crop) == (17, (16, 16))
    torch.testing.assert_close(opened.model(images), expected_logits(folder, images))


def test_a_run_folder_can_build_it_again_without_the_folder(folder: Path) -> None:
    blueprint = find_blueprint(f"timm:local-dir:{folder}", ModelRequest())
    assert blueprint.structure is not None
    name, options = blueprint.structure.name, json.loads(json.dumps(blueprint.structure.options))
    again = plan_named(name, ModelRequest((3, 16, 16), ((0.5,), (0.5,))), options).make(3)
    again.load_state_dict(blueprint.make(3).state_dict())
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(again(images), expected_logits(folder, images))


def test_a_model_of_the_hub_is_fetched_with_its_safetensors_alone(folder: Path, hub: Hub, tmp_path: Path) -> None:
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    (served / "pytorch_model.bin").write_bytes(b"never read")
    hub.models["owner/vit"] = served
    images = torch.rand(2, 3, 16, 16)
    for spec in ("timm:hf-hub:owner/vit", "timm:hf_hub:owner/vit,pretrained=true"):
        torch.testing.assert_close(open_model(spec).model(images), expected_logits(folder, images))
    assert hub.fetched == {"config.json", "model.safetensors"}
    hub.asked.clear()
    opened = open_model("timm:hf-hub:owner/vit,pretrained=false", classes=5)
    assert (opened.classes, "random weights" in opened.notes[0]) == (5, True)
    assert not hub.fetched


def test_published_weights_of_a_plain_name_come_from_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = timm.create_model("test_vit.r160_in1k")
    place = tmp_path / "served"
    place.mkdir()
    save_file(model.state_dict(), place / "model.safetensors", metadata={"format": "pt"})
    hub.models["timm/test_vit.r160_in1k"] = place
    opened = open_model("timm:test_vit.r160_in1k,pretrained=true", image_shape=(3, 160, 160))
    assert (opened.classes, len(opened.class_names or ())) == (1000, 1000)
    for name, value in model.state_dict().items():
        assert torch.equal(opened.model.model.state_dict()[name], value)
    redirect(monkeypatch, address=hub.address, cache=tmp_path / "empty")
    hub.models.clear()
    with pytest.raises(ModelError, match="expected a model from timm") as caught:
        open_model("timm:test_vit.r160_in1k,pretrained=true", image_shape=(3, 160, 160))
    assert "\n" not in str(caught.value)


def rewrite(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def make_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04 never read")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle": (make_pickle, "weights in model.safetensors, got pytorch_model.bin, a pickle"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "weights in model.safetensors, got none"),
    "no config": (lambda f: (f / "config.json").unlink(), "a config.json in the folder"),
    "no architecture": (lambda f: rewrite(f, architecture=None), "timm's name of an architecture, got one without"),
    "one of transformers": (
        lambda f: rewrite(f, architecture=None, model_type="vit"),
        "of transformers: name it transformers:FOLDER",
    ),
    "unknown architecture": (lambda f: rewrite(f, architecture="vit_huger"), "expected a model from timm"),
    "damaged": (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 30), "expected a model from timm"),
    "others": (lambda f: save_file({"x": torch.ones(1)}, f / "model.safetensors"), "expected a model from timm"),
    "NaN": (
        lambda f: save_file(
            {name: value * float("nan") for name, value in load_file(f / "model.safetensors").items()},
            f / "model.safetensors",
        ),
        "finite numbers",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_in_one_line(case: str, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "m"))
    change, expected = BROKEN[case]
    change(copy)
    with pytest.raises(ModelError) as caught:
        open_model(f"timm:local-dir:{copy}")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["timm:local-dir:", "timm:local-dir:/nowhere", "timm:other:x", "timm:hf-hub:a b"])
def test_a_name_of_nothing_is_refused(spec: str) -> None:
    with pytest.raises(ModelError, match="timm:"):
        open_model(spec)
