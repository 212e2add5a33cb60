"""Plain networks: multilayer perceptrons and All-CNN-C."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.errors import ModelError
from assay.models.wrappers import Normalize
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

    def __init__(self, *, classes: int, inputs: int, normalize: Normalize, options: MLPOptions) -> None:
        super().__init__()
        self.normalize = normalize
        widths = [inputs, *[options.width] * (options.depth - 1), classes]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (before, after) in enumerate(pairwise(widths), start=1):
            last, linear = i == options.depth, nn.Linear(before, after)
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
        return self.layers(torch.flatten(self.normalize(images), 1))  # type: ignore[no-any-return]


def build_mlp(
    *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object]
) -> MLP:
    """A perceptron of three layers of width 512 unless ``options`` (see :class:`MLPOptions`) say otherwise."""
    chosen = MLPOptions.parse(dict(options), where="mlp")
    return MLP(classes=classes, inputs=prod(image_shape), normalize=normalize, options=chosen)


SMALLEST = 9  # pixels: two halvings leave 3, which the unpadded seventh convolution takes to 1


class AllCNNOptions(Options):
    """``input_dropout`` falls on the pixels, ``dropout`` after each stride-2 layer; ``width`` multiplies the channels.

    ``output_relu`` keeps the rectifier that table 1 of the paper puts after the last convolution, so that logits are
    means of non-negative numbers.
    """

    input_dropout: float = Field(0.2, ge=0, lt=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    width: float = Field(1.0, gt=0, le=64)
    output_relu: bool = True


class AllCNN(nn.Module):
    """All-CNN-C of Springenberg et al. 2015, *Striving for simplicity*, tables 1 and 2: 1.37 M parameters.

    Seven 3×3 convolutions (the third and the sixth of stride 2, the seventh unpadded) and two 1×1, a rectifier after
    each, then the mean over pixels. Images (N, C, H, W) in [0, 1]; logits (N, classes). He's initialisation.
    """

    def __init__(self, *, classes: int, in_channels: int, normalize: Normalize, options: AllCNNOptions) -> None:
        super().__init__()
        narrow, wide = (max(1, round(channels * options.width)) for channels in (96, 192))
        self.normalize = normalize
        self.dropout0 = nn.Dropout(options.input_dropout)
        plan = [  # output channels, kernel, stride, padding
            *[(narrow, 3, 1, 1), (narrow, 3, 1, 1), (narrow, 3, 2, 1)],
            *[(wide, 3, 1, 1), (wide, 3, 1, 1), (wide, 3, 2, 1)],
            *[(wide, 3, 1, 0), (wide, 1, 1, 0), (classes, 1, 1, 0)],
        ]
        self.features = nn.Sequential()
        for i, (out_channels, kernel, stride, padding) in enumerate(plan, start=1):
            conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias) if conv.bias is not None else None
            self.features.add_module(f"conv{i}", conv)
            if i < len(plan) or options.output_relu:
                self.features.add_module(f"relu{i}", nn.ReLU())
            if stride == 2:
                self.features.add_module(f"dropout{i}", nn.Dropout(options.dropout))
            in_channels = out_channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(self.dropout0(self.normalize(images)))
        return torch.flatten(self.avgpool(x), 1)


def build_allcnn(
    *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object]
) -> AllCNN:
    """All-CNN-C for images of at least 9×9 pixels; ``options`` as in :class:`AllCNNOptions`."""
    chosen = AllCNNOptions.parse(dict(options), where="allcnn")
    if min(image_shape[1:]) < SMALLEST:
        got = f"{image_shape[1]}×{image_shape[2]}"
        raise ModelError("allcnn", expected=f"images of at least {SMALLEST}×{SMALLEST} pixels", got=got)
    return AllCNN(classes=classes, in_channels=image_shape[0], normalize=normalize, options=chosen)
