from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from assay.models.architectures import build


def make(**options: object) -> nn.Module:
    return build("mlp", classes=4, image_shape=(1, 5, 6), options=options, normalization="none")


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_the_linear_layers(depth: int) -> None:
    linear = [module for module in make(depth=depth, width=7).modules() if isinstance(module, nn.Linear)]
    widths = [30, *[7] * (depth - 1), 4]
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(pairwise(widths))


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2.0), ("tanh", 25 / 9), ("sigmoid", 1.0)])
def test_hidden_weights_keep_the_variance(activation: str, gain: float) -> None:
    first = make(width=4000, activation=activation).get_submodule("layers.linear1")
    assert isinstance(first, nn.Linear)
    assert first.weight.var().item() == pytest.approx(gain / 30, rel=0.03)
    assert not first.bias.any()


def test_a_deep_relu_net_neither_vanishes_nor_explodes() -> None:
    model = make(depth=30, width=512).eval()
    with torch.no_grad():
        out = model(torch.rand(64, 1, 5, 6))
    assert 0.05 < out.std().item() < 20


def test_norm_and_dropout_come_between_layers() -> None:
    model = make(depth=2, batch_norm=True, dropout=0.3, activation="tanh")
    inner = model.get_submodule("layers")
    assert [name for name, _ in inner.named_children()] == ["linear1", "bn1", "tanh1", "dropout1", "linear"]


def test_takes_images_in_any_memory_format() -> None:
    model = build("mlp", classes=2, image_shape=(3, 4, 4)).eval()
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(model(images), model(images.contiguous(memory_format=torch.channels_last)))
