"""Fully connected networks: the simplest thing that can be deep."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import prod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.models.normalize import Normalize
from assay.options import Options

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class MLPOptions(Options):
    """``depth`` counts the linear layers, the last one included; ``width`` is that of the hidden ones."""

    depth: int = Field(3, ge=1, le=1000)
    width: int = Field(512, ge=1)
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    batch_norm: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)


class MLP(nn.Module):
    """Linear layers with an activation between them, on the flattened image.

    Images (N, C, H, W) in [0, 1]; logits (N, classes). Hidden weights are drawn from N(0, gain²/fan_in) with gain² = 2
    for ReLU (He et al. 2015), 25/9 for tanh and 1 for sigmoid; the last layer from N(0, 1/fan_in); biases are zero.
    """

    def __init__(
        self, *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: MLPOptions
    ) -> None:
        super().__init__()
        self.normalize = normalize
        widths = [prod(image_shape), *[options.width] * (options.depth - 1), classes]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, options.depth + 1):
            last = i == options.depth
            linear = nn.Linear(widths[i - 1], widths[i])
            nn.init.kaiming_normal_(linear.weight, nonlinearity="linear" if last else options.activation)
            nn.init.zeros_(linear.bias)
            layers["linear" if last else f"linear{i}"] = linear
            if last:
                break
            if options.batch_norm:
                layers[f"bn{i}"] = nn.BatchNorm1d(options.width)
            layers[f"{options.activation}{i}"] = _ACTIVATIONS[options.activation]()
            if options.dropout > 0:
                layers[f"dropout{i}"] = nn.Dropout(options.dropout)
        self.layers = nn.Sequential(layers)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to logits (N, classes)."""
        return self.layers(torch.flatten(self.normalize(images), 1))  # type: ignore[no-any-return]


def build_mlp(
    *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object]
) -> MLP:
    """A perceptron of three layers of width 512 unless ``options`` (see :class:`MLPOptions`) say otherwise."""
    chosen = MLPOptions.parse(dict(options), where="mlp")
    return MLP(classes=classes, image_shape=image_shape, normalize=normalize, options=chosen)
