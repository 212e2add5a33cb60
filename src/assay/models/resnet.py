"""Residual networks: for small images and for large, with and without skips, activation before or after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import OptionError
from assay.models.wrappers import Normalize
from assay.options import Options

SMALL_IMAGE = 64  # pixels; up to here a 3×3 stem that keeps the resolution, above it the 7×7 stem that quarters it


class ResNetOptions(Options):
    """What may vary in a residual network.

    ``shortcut``    where the shape changes: ``A`` subsamples and pads with zero channels (no parameters), ``B``
                    projects by a 1×1 convolution (He et al. 2015, section 4.1)
    ``activation``  ``post``: relu(x + body(x)) (He et al. 2015); ``pre``: x + body(x), the body beginning with its
                    normalisation and activation (He et al. 2016, *Identity mappings in deep residual networks*)
    ``norm_order``  ``bn-relu``, or ``relu-bn``: every pair in the other order, and no activation after the addition
    ``skips``       off: the plain network, body(x) in place of x + body(x)
    ``width``       multiplies every number of channels
    ``stem``        ``cifar``: 3×3, stride 1; ``imagenet``: 7×7, stride 2, then max-pooling; ``auto``: by image size
    """

    shortcut: Literal["A", "B"] = "B"
    activation: Literal["post", "pre"] = "post"
    norm_order: Literal["bn-relu", "relu-bn"] = "bn-relu"
    skips: bool = True
    width: float = Field(1.0, gt=0, le=64)
    stem: Literal["auto", "cifar", "imagenet"] = "auto"


class CifarResNetOptions(ResNetOptions):
    """``block`` too: ``basic``, two 3×3 convolutions, or ``bottleneck``, 1×1 down, 3×3, 1×1 up to four times the width.

    A depth d has (d − 2)/6 basic blocks a stage, or (d − 2)/9 bottlenecks (He et al. 2016, appendix); 20, 38 and 56
    have both.
    """

    block: Literal["basic", "bottleneck"] = "basic"


class PadShortcut(nn.Module):
    """Option A: every ``stride``-th pixel, with zero channels added half before and half after. No parameters."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + before + after, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, channels=+{self.before}+{self.after}"


class ResidualBlock(nn.Module):
    """skip(x) + body(x), the body a chain of convolutions, each with its normalisation and activation.

    ``plan`` gives kernel, output channels and stride of each convolution. The convolutions are called ``conv1``,
    ``conv2``, …, their norms ``bn1``, ``bn2``, …; ``shortcut`` is None where the skip is the identity.
    ``shared`` (pre-activation only): the skip branches off after the first activation, as in the first unit of the
    network and wherever the shape changes (He et al. 2016, section 4).
    """

    expansion: ClassVar[int]

    def __init__(
        self, in_channels: int, plan: Sequence[tuple[int, int, int]], *, options: ResNetOptions, shared: bool
    ) -> None:
        super().__init__()
        self.pre = options.activation == "pre"
        self.relu_first = options.norm_order == "relu-bn"
        self.skips = options.skips
        self.shared = shared
        self.length = len(plan)
        before, total_stride = in_channels, 1
        for i, (kernel, after, stride) in enumerate(plan, start=1):
            conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(before if self.pre else after))
            self.add_module(f"relu{i}", nn.ReLU())
            before, total_stride = after, total_stride * stride
        self.shortcut: nn.Module | None = None
        if self.skips and (total_stride != 1 or before != in_channels):
            self.shortcut = _shortcut(in_channels, before, stride=total_stride, options=options)

    def _conv(self, i: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"conv{i}")(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def _activate(self, i: int, x: Tensor) -> Tensor:
        norm, relu = self.get_submodule(f"bn{i}"), self.get_submodule(f"relu{i}")
        return norm(relu(x)) if self.relu_first else relu(norm(x))  # type: ignore[no-any-return]

    def _skip(self, x: Tensor) -> Tensor:
        return x if self.shortcut is None else self.shortcut(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""
        return self._forward_pre(x) if self.pre else self._forward_post(x)

    def _forward_post(self, x: Tensor) -> Tensor:
        out, last = x, self.length
        for i in range(1, last):
            out = self._activate(i, self._conv(i, out))
        out = self._conv(last, out)
        out = self._activate(last, out) if self.relu_first else self.get_submodule(f"bn{last}")(out)
        out = out + self._skip(x) if self.skips else out
        return out if self.relu_first else self.get_submodule(f"relu{last}")(out)

    def _forward_pre(self, x: Tensor) -> Tensor:
        out = self._activate(1, x)
        source = out if self.shared else x
        out = self._conv(1, out)
        for i in range(2, self.length + 1):
            out = self._conv(i, self._activate(i, out))
        return out + self._skip(source) if self.skips else out


class BasicBlock(ResidualBlock):
    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int, options: ResNetOptions, shared: bool) -> None:
        super().__init__(in_channels, [(3, width, stride), (3, width, 1)], options=options, shared=shared)


class BottleneckBlock(ResidualBlock):
    """1×1 down, 3×3 (which carries the stride), 1×1 up to four times the width."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int, options: ResNetOptions, shared: bool) -> None:
        plan = [(1, width, 1), (3, width, stride), (1, 4 * width, 1)]
        super().__init__(in_channels, plan, options=options, shared=shared)


Block = type[BasicBlock] | type[BottleneckBlock]


def _shortcut(in_channels: int, out_channels: int, *, stride: int, options: ResNetOptions) -> nn.Module:
    if options.shortcut == "A" and out_channels >= in_channels:
        return PadShortcut(in_channels, out_channels, stride=stride)
    conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    # A pre-activation unit passes a normalised input to its skip, so its projection has no norm.
    return nn.Sequential(conv) if options.activation == "pre" else nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """Stem, stages ``layer1``, ``layer2``, … (each halving the resolution but the first), mean over pixels, ``linear``.

    ``blocks`` is the number of blocks of each stage, ``base_width`` the width of the first; it doubles from stage to
    stage. Images (N, C, H, W) in [0, 1]; logits (N, classes). Convolutions are drawn from N(0, 2/(c_out·k²))
    (He et al. 2015, *Delving deep into rectifiers*, eq. 14).
    """

    def __init__(
        self,
        block: Block,
        blocks: Sequence[int],
        *,
        base_width: int,
        classes: int,
        in_channels: int,
        normalize: Normalize,
        options: ResNetOptions,
    ) -> None:
        super().__init__()
        self.pre = options.activation == "pre"
        self.relu_first = options.norm_order == "relu-bn"
        self.stages = len(blocks)
        channels = max(1, round(base_width * options.width))
        large = options.stem == "imagenet"
        self.normalize = normalize
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=padding, bias=False)
        if not self.pre:
            self.bn1 = nn.BatchNorm2d(channels)
            self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else None
        width = channels
        for stage, count in enumerate(blocks, start=1):
            layer = nn.Sequential()
            for i in range(count):
                stride = 2 if i == 0 and stage > 1 else 1
                shared = stride != 1 or channels != width * block.expansion or (stage == 1 and i == 0)
                layer.append(block(channels, width, stride=stride, options=options, shared=shared))
                channels = width * block.expansion
            self.add_module(f"layer{stage}", layer)
            width *= 2
        if self.pre:
            self.bn_last = nn.BatchNorm2d(channels)
            self.relu_last = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(self.normalize(images))
        if not self.pre:
            x = self.bn1(self.relu(x)) if self.relu_first else self.relu(self.bn1(x))
        if self.maxpool is not None:
            x = self.maxpool(x)
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        if self.pre:
            x = self.bn_last(self.relu_last(x)) if self.relu_first else self.relu_last(self.bn_last(x))
        return self.linear(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def build_cifar_resnet(
    *, depth: int, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object]
) -> ResNet:
    """The ResNets for CIFAR-10 of He et al. 2015, section 4.2: 6n + 2 layers, widths 16, 32 and 64.

    Option A shortcuts and the small stem unless ``options`` (see :class:`CifarResNetOptions`) say otherwise.
    Raises :class:`OptionError` for a depth that bottlenecks do not add up to.
    """
    chosen = CifarResNetOptions.parse({"shortcut": "A", "stem": "cifar", **options}, where=f"resnet{depth}")
    if chosen.stem == "auto":
        chosen = chosen.model_copy(update={"stem": "cifar"})
    block, layers = (BottleneckBlock, 9) if chosen.block == "bottleneck" else (BasicBlock, 6)
    if (depth - 2) % layers:
        raise OptionError(f"resnet{depth}: block", expected=f"a depth of {layers}n + 2 for {chosen.block}", got=depth)
    blocks, in_channels = ((depth - 2) // layers,) * 3, image_shape[0]
    return ResNet(
        block, blocks, base_width=16, classes=classes, in_channels=in_channels, normalize=normalize, options=chosen
    )


def build_resnet(
    *,
    name: str,
    block: Block,
    blocks: Sequence[int],
    classes: int,
    image_shape: tuple[int, int, int],
    normalize: Normalize,
    options: Mapping[str, object],
) -> ResNet:
    """The ResNets for ImageNet of He et al. 2015, table 1: four stages of width 64, 128, 256 and 512.

    The stride of a bottleneck is on its 3×3 convolution, as in every current library. Images of up to 64 pixels a side
    get the small stem unless ``options`` (see :class:`ResNetOptions`) say otherwise.
    """
    chosen = ResNetOptions.parse(dict(options), where=name)
    if chosen.stem == "auto":
        chosen = chosen.model_copy(update={"stem": "cifar" if min(image_shape[1:]) <= SMALL_IMAGE else "imagenet"})
    return ResNet(
        block, blocks, base_width=64, classes=classes, in_channels=image_shape[0], normalize=normalize, options=chosen
    )
