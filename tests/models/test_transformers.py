"""Classifiers of transformers: their logits, names and pictures against the library's own; refusals in one line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from assay.cli.main import main
from assay.data.preparing import prepare_picture
from assay.errors import ModelError, OptionError
from assay.models.sources import find_blueprint, open_model
from assay.models.sources.blueprint import ModelRequest
from assay.models.sources.processors import prepared_by
from standin_hub import Hub, redirect, serve

CLASSES = ("ant", "bee", "cat")


def write_vit(folder: Path, *, classes: tuple[str, ...] | None = CLASSES, seed: int = 0) -> Path:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    names = {"id2label": dict(enumerate(classes)), "label2id": {n: i for i, n in enumerate(classes)}} if classes else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8, **(names or {"num_labels": 3}))
        model = transformers.ViTForImageClassification(config)
        torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    processor = pil_processor("ViT")(size={"height": 16, "width": 16}, image_mean=[0.5, 0.4, 0.3])
    processor.save_pretrained(folder)
    return folder


def pil_processor(kind: str) -> Callable[..., Any]:
    return getattr(transformers, f"{kind}ImageProcessorPil")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vit(tmp_path_factory.mktemp("models") / "a, b=c")  # a folder's name is no list of options


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as server:
        redirect(monkeypatch, address=server.address, cache=tmp_path / "cache")
        yield server


def own_logits(folder: Path, pictures: list[Image.Image]) -> torch.Tensor:
    """What the library's documentation does: processor, model, logits."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**processor(pictures, return_tensors="pt")).logits


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def test_logits_names_and_preparation_are_the_librarys(vit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    opened = open_model(f"transformers:{vit}")
    assert capfd.readouterr() == ("", "")  # no bars, no reports
    assert (opened.classes, opened.image_shape, opened.class_names, opened.notes) == (3, (3, 16, 16), CLASSES, ())
    pictures = [noise(30, 50), noise(61, 16, 1)]
    prepared = torch.cat([pixels(prepare_picture(each, opened.preparation)) for each in pictures])
    torch.testing.assert_close(opened.model(prepared), own_logits(vit, pictures), rtol=0, atol=1e-5)
    subset = open_model(f"transformers:{vit}", classes=["cat", "ant"])
    torch.testing.assert_close(subset.model(prepared), opened.model(prepared)[:, [2, 0]])


GEOMETRIES: list[tuple[str, dict[str, Any]]] = [
    ("ViT", {}),
    ("ViT", {"size": {"height": 20, "width": 31}, "resample": 3}),
    ("ViT", {"do_resize": False, "do_normalize": False, "do_center_crop": True,
             "crop_size": {"height": 9, "width": 8}}),
    ("ViT", {"do_rescale": False}),
    ("DeiT", {"size": {"height": 29, "width": 29}, "crop_size": {"height": 24, "width": 24}}),
    ("DeiT", {"size": {"shortest_edge": 29}, "crop_size": {"height": 24, "width": 24}, "resample": 0}),
    ("DeiT", {"size": {"shortest_edge": 21}, "crop_size": {"height": 30, "width": 30}}),  # black around
    ("ConvNext", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
    ("ConvNext", {"size": {"shortest_edge": 21}, "crop_pct": 0.9}),
    ("ConvNext", {"size": {"shortest_edge": 384}}),
    ("Beit", {"size": {"height": 24, "width": 24}, "do_center_crop": True, "crop_size": {"height": 22, "width": 22}}),
    ("MobileNetV2", {"size": {"shortest_edge": 25}, "crop_size": {"height": 22, "width": 22}}),
    ("MobileNetV1", {"size": {"shortest_edge": 25}, "crop_size": {"height": 22, "width": 22}}),
    ("EfficientNet", {"size": {"height": 26, "width": 26}, "rescale_factor": 1 / 127.5, "rescale_offset": True}),
    ("EfficientNet", {"size": {"height": 26, "width": 26}, "include_top": False, "do_center_crop": True,
                      "crop_size": {"height": 25, "width": 25}}),
    ("EfficientNet", {"size": {"height": 26, "width": 26}}),
    ("Levit", {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}),
    ("PoolFormer", {"size": {"shortest_edge": 28}, "crop_pct": 0.9, "crop_size": {"height": 28, "width": 28}}),
    ("MobileViT", {"size": {"shortest_edge": 28}, "crop_size": {"height": 25, "width": 25}}),  # BGR
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings"), GEOMETRIES, ids=[f"{k}-{i}" for i, (k, _) in enumerate(GEOMETRIES)])
def test_pictures_are_prepared_as_by_the_processor_itself(kind: str, settings: dict[str, Any]) -> None:
    processor = pil_processor(kind)(**settings)
    preparation = prepared_by(processor, source="it")
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in preparation.normalization or ((0.0,), (1.0,)))
    for picture in (noise(33, 60), noise(47, 31, 1), noise(24, 24, 2), noise(22, 40, 3)):
        own = processor(picture, return_tensors="pt")["pixel_values"]
        ours = pixels(prepare_picture(picture, preparation))
        ours = ours.flip(1) if preparation.channels == "bgr" else ours
        assert ours.shape == own.shape
        # Bit for bit: no two of the 256 values of a pixel are nearer to one another than that.
        torch.testing.assert_close((ours - mean) / std, own.float(), rtol=1e-5, atol=2e-5 / float(std.min()))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViT", {"do_pad": True, "pad_size": {"height": 300, "width": 300}}),
        ("ViT", {"size": {"shortest_edge": 20, "longest_edge": 24}}),
        ("ViT", {"image_std": [0.0, 1.0, 1.0]}),
        ("ImageGPT", {}),
        ("Siglip2", {}),
    ],
)
def test_a_processor_that_does_anything_else_is_refused(kind: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="expected a processor that resizes, crops at the centre"):
        prepared_by(pil_processor(kind)(**settings), source="it")


def test_generic_labels_are_no_names(tmp_path: Path) -> None:
    opened = open_model(f"transformers:{write_vit(tmp_path, classes=None)}")
    assert (opened.classes, opened.class_names) == (3, None)


def test_a_head_that_the_file_does_not_have_is_told_as_random(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "m"))
    tensors = load_file(folder / "model.safetensors")
    body = {name: value for name, value in tensors.items() if not name.startswith("classifier")}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    opened = open_model(f"transformers:{folder}")
    missing = "its file has no weights for classifier.bias, classifier.weight"
    assert opened.notes == (f"transformers:{folder} has a random last layer: {missing}",)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["ViTModel"]}))
    opened = open_model(f"transformers:{folder}", classes=7)
    assert (opened.classes, opened.class_names, len(opened.notes)) == (7, None, 1)


def test_without_a_processor_the_preparation_is_a_guess_that_is_told(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "m"))
    (folder / "preprocessor_config.json").unlink()
    opened = open_model(f"transformers:{folder}")
    assert opened.preparation is not None
    assert opened.preparation.size == (16, 16)
    assert "has no preprocessor_config.json: pictures are prepared by a guess, squash=16" in opened.notes[0]
    assert "--prepare" in opened.notes[0]


def test_random_weights_where_they_are_asked_for(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "m"))
    (folder / "model.safetensors").unlink()
    opened = open_model(f"transformers:{folder},pretrained=false")
    assert "random weights" in opened.notes[0]


def test_the_structure_alone_builds_the_network_again(vit: Path) -> None:
    opened = find_blueprint(f"transformers:{vit}", ModelRequest())
    assert opened.structure is not None
    name, options = opened.structure
    from assay.models.sources.named import plan_named

    again = plan_named(name, ModelRequest(), json.loads(json.dumps(options))).make(3)
    trained, images = opened.make(3), torch.rand(2, 3, 16, 16)
    again.load_state_dict(trained.state_dict())  # the run folder's, normalisation included
    torch.testing.assert_close(again(images), trained(images))


Change = Callable[[Path], object]


def edit(name: str, **changes: object) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        kept = {key: value for key, value in content.items() if changes.get(key, value) is not None}
        (folder / name).write_text(json.dumps(kept | {k: v for k, v in changes.items() if v is not None}))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04 never read")


BROKEN: dict[str, tuple[Change, str]] = {
    "a pickle": (pickled, "weights in model.safetensors, got pytorch_model.bin, a pickle, which could run code"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "weights in model.safetensors, got none"),
    "no config": (lambda f: (f / "config.json").unlink(), "a config.json in the folder"),
    "config of noise": (lambda f: (f / "config.json").write_bytes(b"\xff\x00{"), "config.json: expected JSON"),
    "config of a list": (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object, got list"),
    "a text model": (
        edit("config.json", model_type="bert", architectures=["BertForSequenceClassification"]),
        "image classifiers, got BertForSequenceClassification of the type 'bert'",
    ),
    "no type": (edit("config.json", model_type=None), "got a config.json without model_type"),
    "sizes of others": (edit("config.json", hidden_size=12), "a model from transformers, got"),
    "damaged weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(40)),
        "a model from transformers, got",
    ),
    "weights of others": (
        lambda f: save_file({"x": torch.ones(1)}, f / "model.safetensors", metadata={"format": "pt"}),
        "the weights of ViTForImageClassification, got a file without",
    ),
    "NaN": (
        lambda f: save_file(
            {k: v * float("nan") for k, v in load_file(f / "model.safetensors").items()},
            f / "model.safetensors",
            metadata={"format": "pt"},
        ),
        "expected finite numbers",
    ),
    "its own code": (
        edit("config.json", auto_map={"AutoModelForImageClassification": "evil.Evil"}),
        "expected --trust-code",
    ),
    "a processor's own code": (
        edit("preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Evil"}),
        "its preprocessor_config.json names Python code to run",
    ),
    "processor of noise": (
        lambda f: (f / "preprocessor_config.json").write_text("{"),
        "preprocessor_config.json: expected JSON",
    ),
    "another processor": (
        edit("preprocessor_config.json", image_processor_type="ImageGPTImageProcessor"),
        "a processor that resizes",
    ),
    "one of timm": (edit("config.json", architecture="vit_tiny", model_type=None), "name it timm:local-dir:FOLDER"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_or_could_run_code_is_refused_in_one_line(case: str, vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "m"))
    (folder / "evil.py").write_text("raise SystemExit('this code was run')")
    change, expected = BROKEN[case]
    change(folder)
    with pytest.raises(ModelError) as caught:
        open_model(f"transformers:{folder}")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_of_the_folder_runs_only_when_it_is_trusted(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "mine"))
    code = "from transformers import ViTConfig, ViTForImageClassification\n\n\n"
    (folder / "mine.py").write_text(
        f"{code}class MyConfig(ViTConfig):\n    model_type = 'mine'\n\n\n"
        "class Mine(ViTForImageClassification):\n    config_class = MyConfig\n"
    )
    auto_map = {"AutoConfig": "mine.MyConfig", "AutoModelForImageClassification": "mine.Mine"}
    edit("config.json", model_type="mine", auto_map=auto_map, architectures=["MineForImageClassification"])(folder)
    with pytest.raises(ModelError, match="mine.MyConfig"):
        open_model(f"transformers:{folder}")
    opened = open_model(f"transformers:{folder}", trust_code=True)
    assert type(opened.model.model).__name__ == "Mine"
    torch.testing.assert_close(
        opened.model(torch.ones(1, 3, 16, 16)), open_model(f"transformers:{vit}").model(torch.ones(1, 3, 16, 16))
    )


@pytest.mark.parametrize("spec", ["transformers:", "transformers:./nowhere", "transformers:a b", "transformers:a/b/c"])
def test_a_name_of_nothing_is_refused(spec: str) -> None:
    with pytest.raises(ModelError, match="folder"):
        open_model(spec)


def test_unknown_options_are_refused(vit: Path, tmp_path: Path) -> None:
    shutil.copytree(vit, tmp_path / "m")
    with pytest.raises(OptionError, match="sharded"):
        open_model(f"transformers:{tmp_path / 'm'},sharded=true")


def test_the_command_line_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["assay", "anatomy", f"transformers:{tmp_path}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_model_of_the_hub_is_fetched_once_and_only_what_it_needs(vit: Path, hub: Hub, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "served"))
    for name in ("pytorch_model.bin", "README.md", "evil.py"):
        (folder / name).write_text("not wanted")
    hub.models["owner/vit"] = folder
    opened = open_model("transformers:owner/vit")
    assert hub.fetched == {"config.json", "preprocessor_config.json", "model.safetensors"}
    expected = open_model(f"transformers:{vit}")
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(opened.model(images), expected.model(images))
    hub.asked.clear()
    open_model("transformers:owner/vit@main")
    assert not hub.fetched


def test_what_the_hub_does_not_have_or_cannot_tell_is_one_line(
    hub: Hub, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "served"))
    pickled(folder)
    hub.models["owner/old"] = folder
    for spec, expected in (
        ("transformers:owner/unknown", "or a model of that name on the hub"),
        ("transformers:owner/old", "weights in model.safetensors"),
    ):
        with pytest.raises(ModelError, match=expected) as caught:
            open_model(spec)
        assert "\n" not in str(caught.value)
    redirect(monkeypatch, address="http://127.0.0.1:9", cache=tmp_path / "empty")
    with pytest.raises(ModelError, match="or a model of that name on the hub, got neither") as caught:
        open_model("transformers:owner/unknown")
    assert "\n" not in str(caught.value)
