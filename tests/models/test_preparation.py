"""How pictures are prepared is known with the model, before any data are opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from assay.models.sources import find_preparation, load_model, open_model
from assay.records.preparation import Preparation

Refused = Callable[[Callable[[], object]], str]


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError(f"something was to be fetched: {arguments}")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize(
    ("spec", "spelled"),
    [
        ("torchvision:resnet18,weights=DEFAULT", "resize=256,crop=224,mean=0.485,0.456,0.406,std=0.229,0.224,0.225"),
        ("torchvision:resnet50,weights=IMAGENET1K_V2", "resize=232,crop=224,mean=0.485"),
        ("torchvision:inception_v3,weights=DEFAULT", "resize=342,crop=299,mean=0.485"),
        ("torchvision:swin_t,weights=DEFAULT", "resize=232:bicubic,crop=224,mean=0.485"),
        ("timm:resnet10t,pretrained=true", "resize=201:bicubic,crop=176"),
        ("timm:vit_tiny_patch16_224,pretrained=true", "resize=248:bicubic,crop=224,mean=0.5,std=0.5"),
        ("timm:mobilenetv4_conv_small,pretrained=true", "resize=256:bicubic,crop=224"),
        ("timm:vit_tiny_patch16_224,pretrained=true,img_size=64", "resize=71:bicubic,crop=64,mean=0.5,std=0.5"),
    ],
)
def test_what_published_weights_state(spec: str, spelled: str) -> None:
    preparation = find_preparation(spec)
    assert preparation is not None
    assert preparation.spelled.startswith(spelled)
    assert preparation.source.startswith(spec.split(",", maxsplit=1)[0])


@pytest.mark.parametrize(
    "spec", ["resnet8", "torchvision:resnet18", "timm:resnet10t", "file.py:factory", "a.b:factory"]
)
def test_random_weights_and_ones_own_code_state_nothing(spec: str) -> None:
    assert find_preparation(spec) is None
    stated = Preparation.parse("resize=9")
    assert find_preparation(spec, prepare=stated) == stated


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("timm") / "tiny"
    torch.manual_seed(3)
    network = timm.create_model("test_byobnet", num_classes=3)
    published = {
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 48], "crop_pct": 0.8,
        "crop_mode": "border", "interpolation": "lanczos", "num_classes": 3, "label_names": ["a", "b", "c"],
    }  # fmt: skip
    save_for_hf(network, str(folder), model_config={"pretrained_cfg": published}, safe_serialization=True)
    return folder


@pytest.mark.parametrize("how", ["timm:{}", "timm:local-dir:{},pretrained=true"])
def test_a_local_folder_of_timms_brings_weights_classes_and_preparation(how: str, timm_folder: Path) -> None:
    from safetensors.torch import load_file

    spec = how.format(timm_folder)
    loaded = open_model(spec, classes=("a", "b", "c"), image_shape=(3, 32, 48))
    assert loaded.preparation == find_preparation(spec)
    assert loaded.preparation.spelled == (
        "border=40x60:lanczos,crop=32x48,fill=26,51,76,mean=0.1,0.2,0.3,std=0.4,0.5,0.6"
    )
    assert (loaded.classes, loaded.class_names, loaded.notes) == (3, ("a", "b", "c"), ())
    saved = load_file(next(timm_folder.glob("*.safetensors")))
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.model.model.state_dict().items())


def test_what_is_stated_takes_the_place_of_the_models_own(timm_folder: Path) -> None:
    spec = f"timm:{timm_folder}"
    images = torch.rand(2, 3, 32, 48)
    own = load_model(spec)
    other = open_model(spec, prepare="mean=0.5,std=0.25")
    assert other.preparation.resize == (40, 60)
    assert (other.preparation.mean, other.preparation.source) == ((0.5,), f"prepare and {spec}, pretrained_cfg")
    torch.testing.assert_close(other.model(images), own.model((images - 0.5) / 0.25))
    reversed_ = open_model(spec, prepare="bgr")
    torch.testing.assert_close(reversed_.model(images), own(images.flip(1)))
    assert (reversed_.preparation.channels, reversed_.preparation.mean) == ("bgr", (0.1, 0.2, 0.3))
    plain = open_model(spec, normalization="none").preparation
    assert (plain.mean, plain.std, plain.resize) == ((0.0,) * 3, (1.0,) * 3, (40, 60))


def test_caffes_convention_before_ones_own_code(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef build():\n    return nn.Flatten()\n")
    loaded = open_model(
        f"{tmp_path / 'net.py'}:build",
        classes=3, image_shape=(3, 1, 1), prepare="mean=103.9,116.8,123.7,std=1,bgr,scale=255",
    )  # fmt: skip
    pixels = torch.tensor([[1.0, 0.5, 0.0]]).view(1, 3, 1, 1)
    expected = torch.tensor([[0 - 103.9, 127.5 - 116.8, 255 - 123.7]])
    torch.testing.assert_close(loaded.model(pixels), expected, atol=1e-3, rtol=0)


def test_a_run_folder_states_its_own(tmp_path: Path) -> None:
    network = load_model("mlp", classes=3, image_shape=(3, 8, 6))
    from safetensors.torch import save_file

    save_file(network.state_dict(), tmp_path / "model.safetensors")
    model = {
        "name": "mlp", "classes": ["a", "b", "c"], "image_shape": [3, 8, 6], "mean": [0.5] * 3, "std": [0.25] * 3,
        "preparation": {"resize": 10, "crop": [8, 6], "interpolation": "bicubic", "source": "elsewhere"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"schema_version": 1, "model": model}))
    preparation = find_preparation(str(tmp_path))
    assert preparation == open_model(tmp_path).preparation
    assert preparation.spelled == "resize=10:bicubic,crop=8x6,mean=0.5,std=0.25"
    assert preparation.source == str(tmp_path)
    model["preparation"] = {"resize": -1}
    (tmp_path / "config.json").write_text(json.dumps({"schema_version": 1, "model": model}))
    with pytest.raises(Exception, match=r"config.json: model.preparation.resize"):
        open_model(tmp_path)


def test_what_is_stated_twice_or_does_not_fit_is_refused(refused: Refused) -> None:
    message = refused(lambda: open_model("resnet8", prepare="mean=0.5,std=0.5", normalization="none"))
    assert message == "prepare: expected mean, std and scale in it, or a normalization beside it, got both"
    message = refused(lambda: open_model("resnet8", image_shape=(1, 8, 8), prepare="bgr"))
    assert message == "resnet8: expected three channels to put in the order BGR, got a model for 1"
    message = refused(lambda: open_model("resnet8", image_shape=(1, 8, 8), prepare="mean=1,2,std=1,2"))
    assert message == "normalization: mean: expected 1 or 1 numbers, one a channel, got 2 numbers"


def test_no_random_numbers_are_used_up(timm_folder: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    find_preparation(f"timm:{timm_folder}")
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(load_model("resnet8", prepare="bgr"), nn.Module)
