from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import list_models

from assay.errors import DependencyError
from assay.models.sources import load_model, open_model
from assay.models.wrappers import Normalized

Refused = Callable[[Callable[[], object]], str]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError(f"something was to be fetched: {arguments}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


def as_float(values: torch.Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 32), ("mobilenet_v2", 32), ("mobilenet_v3_small", 32), ("squeezenet1_1", 64)]
)
def test_torchvisions_networks_take_pixels_and_our_number_of_classes(name: str, size: int) -> None:
    loaded = open_model(f"torchvision:{name}", classes=7, image_shape=(3, size, size))
    model = loaded.model
    assert isinstance(model, Normalized)
    assert not model.training
    assert model(torch.rand(2, 3, size, size)).shape == (2, 7)
    assert (as_float(model.normalize.mean), as_float(model.normalize.std)) == IMAGENET
    assert loaded.notes == (f"torchvision:{name} has random weights: nothing was trained and nothing loaded",)


@pytest.mark.usefixtures("no_download")
def test_torchvisions_network_is_its_own_behind_the_normalisation() -> None:
    model = load_model("torchvision:resnet18", classes=5)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in IMAGENET)
    torch.testing.assert_close(model(images), model.model((images - mean) / std))


@pytest.mark.usefixtures("no_download")
def test_left_alone_a_librarys_network_is_for_imagenet() -> None:
    loaded = open_model("torchvision:squeezenet1_1")
    assert (loaded.classes, loaded.image_shape) == (1000, (3, 224, 224))


@pytest.mark.usefixtures("no_download")
def test_options_go_to_torchvisions_builder() -> None:
    model = load_model("torchvision:vit_b_16,image_size=32", classes=3, image_shape=(3, 32, 32))
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.usefixtures("no_download")
def test_a_grey_image_is_shown_to_torchvisions_three_channels() -> None:
    model = load_model("torchvision:resnet18", classes=3, image_shape=(1, 32, 32))
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(model(images), model(images.expand(2, 3, 32, 32)))


@pytest.mark.usefixtures("no_download")
def test_a_saved_torchvision_state_dict_loads_behind_the_normalisation(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from torchvision import models

    path = tmp_path_factory.mktemp("w") / "r.pth"
    theirs = models.resnet18(num_classes=6).eval()
    torch.save(theirs.state_dict(), path)
    model = load_model("torchvision:resnet18", weights=path, normalization="none")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), theirs(images))


def test_published_weights_are_fetched_only_when_asked_for_and_fix_the_classes(
    monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    from torchvision import models

    fetched: list[str] = []

    def fetch(url: str, **keywords: object) -> Mapping[str, torch.Tensor]:
        fetched.append(url)
        return models.resnet18().state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    loaded = open_model("torchvision:resnet18,weights=IMAGENET1K_V1")
    assert (loaded.classes, loaded.notes, len(fetched)) == (1000, (), 1)
    message = refused(lambda: open_model("torchvision:resnet18,weights=IMAGENET1K_V1", classes=10))
    assert message.endswith("expected 10 classes, as the data has, got a model of 1000")
    assert len(fetched) == 1


ONE_OF = f"expected one of torchvision's {len(list_models(torchvision.models))} classifiers"


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("torchvision:resnet19", f"torchvision:resnet19: {ONE_OF}, got 'resnet19' (did you mean resnet18?)"),
        ("torchvision:", f"torchvision:: {ONE_OF}, got ''"),
        (
            "torchvision:resnet18,weights=V3",
            "torchvision:resnet18: weights: expected one of IMAGENET1K_V1, DEFAULT, got 'V3'",
        ),
        (
            "torchvision:resnet18,nonsense=1",
            "torchvision:resnet18: expected a model from torchvision, got TypeError: ResNet.__init__() got an "
            "unexpected keyword argument 'nonsense'",
        ),
        (
            "torchvision:resnet18,nonsense",
            "torchvision:resnet18,nonsense: expected options as NAME,option=value,option=value, got 'nonsense'",
        ),
        (
            "torchvision:fasterrcnn_resnet50_fpn",
            f"torchvision:fasterrcnn_resnet50_fpn: {ONE_OF}, got 'fasterrcnn_resnet50_fpn'",
        ),
    ],
)
def test_wrong_names_and_options(spec: str, expected: str, refused: Refused) -> None:
    assert refused(lambda: load_model(spec)) == expected


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_missing_library_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: object, **keywords: object) -> ModuleType:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return original(name, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyError) as caught:
        load_model(f"{package}:resnet18")
    expected = f"{package}:resnet18 needs the package '{package}': pip install 'assay[{package}]'"
    assert str(caught.value) == expected


class FakeTimm(ModuleType):
    """As much of timm as is called, so that this is tested where timm is not installed."""

    def __init__(self) -> None:
        super().__init__("timm")
        self.made: list[tuple[str, dict[str, object]]] = []

    def is_model(self, name: str) -> bool:
        return name == "tiny"

    def list_models(self) -> list[str]:
        return ["tiny"]

    def get_pretrained_cfg(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(num_classes=21, input_size=(3, 48, 48))

    def create_model(self, name: str, *, num_classes: int, in_chans: int, **options: object) -> nn.Module:
        self.made.append((name, {"num_classes": num_classes, "in_chans": in_chans, **options}))
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_chans, num_classes))
        model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
        return model


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> FakeTimm:
    fake = FakeTimm()
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


def test_timms_networks_come_behind_the_normalisation_they_state(timm: FakeTimm) -> None:
    loaded = open_model("timm:tiny,depth=2", classes=7, image_shape=(3, 8, 8))
    assert timm.made == [("tiny", {"num_classes": 7, "in_chans": 3, "depth": 2})]
    assert as_float(loaded.model.normalize.mean) == [0.1, 0.2, 0.3]
    assert as_float(loaded.model.normalize.std) == [0.4, 0.5, 0.6]
    assert "random weights" in loaded.notes[0]


def test_timm_gets_grey_images_as_such(timm: FakeTimm) -> None:
    model = load_model("timm:tiny", classes=3, image_shape=(1, 8, 8))
    assert timm.made[0][1]["in_chans"] == 1
    assert as_float(model.normalize.mean) == [0.5]


def test_timms_pretrained_weights_fix_the_classes(timm: FakeTimm, refused: Refused) -> None:
    loaded = open_model("timm:tiny,pretrained=true")
    assert (loaded.classes, loaded.image_shape, loaded.notes) == (21, (3, 48, 48), ())
    assert timm.made == [("tiny", {"num_classes": 21, "in_chans": 3, "pretrained": True})]
    assert "got a model of 21" in refused(lambda: open_model("timm:tiny,pretrained=true", classes=10))


def test_timms_unknown_names(timm: FakeTimm, refused: Refused) -> None:
    assert (
        refused(lambda: load_model("timm:tiney"))
        == "timm:tiney: expected one of timm's 1 models, got 'tiney' (did you mean tiny?)"
    )


def test_the_real_timm_builds_behind_the_normalisation() -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    model = load_model("timm:resnet10t", classes=4, image_shape=(3, 32, 32))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    assert as_float(model.normalize.mean) == IMAGENET[0]
