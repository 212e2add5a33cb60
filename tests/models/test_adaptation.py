"""New last layers for other classes: of every source, with the rows of the classes it knows, and the rest untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from assay.errors import ModelError
from assay.models.sources import open_model
from assay.models.sources.adaptation import adapt_model

SHAPE = (3, 32, 32)
FACTORY = """
import torch
from torch import nn


def sized(num_classes=4):
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pooled, nn.Linear(4, num_classes))


def fixed():
    return sized()


def headless():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(spec: str, *, classes: int, names: str = "") -> Path:
        file = tmp_path / "w.safetensors"
        model = open_model(spec, classes=classes, image_shape=SHAPE, seed=3).model
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, file, metadata={"classes": names} if names else None)
        return file

    return write


def tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


@pytest.mark.parametrize(
    ("spec", "head"),
    [
        ("resnet8,width=4", {"linear.weight", "linear.bias"}),
        ("torchvision:squeezenet1_1", {"model.classifier.1.weight", "model.classifier.1.bias"}),
        ("timm:resnet10t", {"model.fc.weight", "model.fc.bias"}),
    ],
)
@pytest.mark.parametrize("count", [3, 7])
def test_new_classes_get_a_new_last_layer_and_all_else_stays(
    spec: str, head: set[str], count: int, save: Callable[..., Path]
) -> None:
    file = save(spec, classes=7, names='["a", "b", "c", "d", "e", "f", "g"]')
    names = [f"new {number}" for number in range(count)]  # none of its own, even where there are as many
    adapted = adapt_model(spec, classes=names, image_shape=SHAPE, weights=file)
    before, after = tensors(open_model(spec, image_shape=SHAPE, weights=file).model), tensors(adapted.model)
    same = {name for name in after if after[name].shape == before[name].shape and after[name].equal(before[name])}
    assert {name for name in head if name.endswith("weight")} <= after.keys() - same <= head
    assert adapted.model(torch.rand(2, *SHAPE)).shape == (2, count)
    assert "new last layer" in adapted.notes[-1]
    again = adapt_model(spec, classes=names, image_shape=SHAPE, weights=file)
    assert all(value.equal(after[name]) for name, value in tensors(again.model).items())
    other = adapt_model(spec, classes=names, image_shape=SHAPE, weights=file, seed=1)
    assert not any(tensors(other.model)[name].equal(after[name]) for name in head if name.endswith("weight"))


def test_the_same_classes_keep_the_last_layer_and_known_ones_their_rows(save: Callable[..., Path]) -> None:
    file = save("resnet8,width=4", classes=3, names='["ant", "bee", "cat"]')
    own = open_model("resnet8,width=4", image_shape=SHAPE, weights=file).model
    images = torch.rand(2, *SHAPE)

    def adapt(*names: str) -> Tensor:
        return adapt_model("resnet8,width=4", classes=names, image_shape=SHAPE, weights=file).model(images)

    torch.testing.assert_close(adapt("ant", "bee", "cat"), own(images))
    torch.testing.assert_close(adapt("cat", "ant", "bee"), own(images)[:, [2, 0, 1]])
    torch.testing.assert_close(adapt("Cat", "ant"), own(images)[:, [2, 0]])


def test_weights_without_names_keep_a_layer_of_as_many_classes_and_say_so(save: Callable[..., Path]) -> None:
    file = save("resnet8,width=4", classes=3)
    adapted = adapt_model("resnet8,width=4", classes=["x", "y", "z"], image_shape=SHAPE, weights=file)
    own = open_model("resnet8,width=4", image_shape=SHAPE, weights=file).model
    torch.testing.assert_close(adapted.model(torch.ones(1, *SHAPE)), own(torch.ones(1, *SHAPE)))
    assert "does not name its 3 classes: its last layer is kept" in adapted.notes[-1]


def test_random_networks_are_made_for_the_classes_at_once() -> None:
    adapted = adapt_model("torchvision:squeezenet1_1", classes=["x", "y", "z"], image_shape=SHAPE)
    assert adapted.model(torch.rand(1, *SHAPE)).shape == (1, 3)
    assert "random weights" in adapted.notes[0]
    assert len(adapted.notes) == 1


def test_a_users_own_network_gets_one_whether_it_takes_a_number_or_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORY)
    for factory in ("sized", "fixed"):
        spec = f"{tmp_path / 'mine.py'}:{factory}"
        own = open_model(spec, classes=4, image_shape=SHAPE).model
        file = tmp_path / f"{factory}.safetensors"
        save_file({name: torch.randn_like(value) for name, value in own.state_dict().items()}, file)
        adapted = adapt_model(spec, classes=["x", "y"], image_shape=SHAPE, weights=file)
        assert adapted.model(torch.rand(1, *SHAPE)).shape == (1, 2)
        loaded = open_model(spec, classes=4, image_shape=SHAPE, weights=file).model
        assert adapted.model[0].weight.equal(loaded[0].weight)
        assert adapted.structure is None
    with pytest.raises(ModelError, match="a last layer with parameters"):
        adapt_model(f"{tmp_path / 'mine.py'}:headless", classes=["x", "y"], image_shape=SHAPE)
