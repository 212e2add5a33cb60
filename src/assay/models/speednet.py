"""A small convolutional network made to be trained quickly: whitened patches first, then six convolutions or nine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import ModelError
from assay.models.wrappers import Normalize
from assay.options import Options

SMALLEST = 9  # pixels: the 2×2 whitening leaves 8, three halvings 1
Width = Annotated[int, Field(ge=4)]


class SpeedNetOptions(Options):
    """``widths`` are the channels of the three blocks; ``logit_scale`` multiplies the logits.

    ``momentum`` is the share of a new batch's statistics in the running ones. ``train_whitening_bias`` costs the
    gradient with respect to the largest activation of the network. ``whitening_epsilon`` bounds how much the rarest
    directions of a patch are amplified, by 1/√ε: adversarial training needs it large, for perturbations live there.
    ``depth`` 3 gives every block a third convolution, bridged by a skip connection; ``pooling`` is that of the blocks.
    ``mirrored`` averages the logits of an image and of its mirror image, once training is over: twice the work for
    logits that mirroring cannot change.
    """

    widths: tuple[Width, Width, Width] = (64, 256, 256)
    depth: Literal[2, 3] = 2
    pooling: Literal["max", "average"] = "max"
    mirrored: bool = False
    logit_scale: float = Field(1 / 9, gt=0)
    momentum: float = Field(0.1, gt=0, le=1)
    train_whitening_bias: bool = False
    whitening_epsilon: float = Field(5e-4, gt=0)


class Whitening(nn.Conv2d):
    """2×2 patches on their principal directions ±v_i/√(λ_i + ε): set by :meth:`fit_to`, never trained.

    Until then the filters are the patch's own pixels and their negatives, so that the layer is of use without data.
    """

    def __init__(self, in_channels: int, *, train_bias: bool) -> None:
        directions = 4 * in_channels
        super().__init__(in_channels, 2 * directions, 2)
        eye = torch.eye(directions).reshape(directions, in_channels, 2, 2)
        self.weight = nn.Parameter(torch.cat([eye, -eye]), requires_grad=False)
        assert self.bias is not None
        nn.init.zeros_(self.bias).requires_grad_(train_bias)

    @torch.no_grad()
    def fit_to(self, images: Tensor, *, epsilon: float) -> None:
        """Take the eigenvectors of the 2×2 patches' covariance in ``images`` (N, C, H, W), as the layer sees them."""
        rows = F.unfold(images.double(), 2).transpose(1, 2).flatten(0, 1)  # (N·positions, 4·C)
        rows = rows - rows.mean(dim=0)
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        # Equal signs on every machine: the largest entry of each direction is positive.
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
        directions = (vectors / (values + epsilon).sqrt()).T.flip(0).reshape(self.weight[: len(values)].shape)
        self.weight.copy_(torch.cat([directions, -directions]))


class SpeedBlock(nn.Module):
    """conv 3×3, pool 2, norm, GELU, conv 3×3, norm, GELU: the pooling comes early, before the elementwise work.

    Of depth 3, conv 3×3 and norm follow, and GELU of their sum with what the second convolution got.
    """

    def __init__(self, in_channels: int, out_channels: int, *, options: SpeedNetOptions) -> None:
        super().__init__()
        self.pool = F.max_pool2d if options.pooling == "max" else F.avg_pool2d
        self.bridged = options.depth == 3
        self.conv1, self.norm1 = _conv_and_norm(in_channels, out_channels, options)
        self.conv2, self.norm2 = _conv_and_norm(out_channels, out_channels, options)
        if self.bridged:
            self.conv3, self.norm3 = _conv_and_norm(out_channels, out_channels, options)
        for conv in (module for module in self.children() if isinstance(module, nn.Conv2d)):
            nn.init.kaiming_uniform_(conv.weight, a=5**0.5)
            nn.init.dirac_(conv.weight[: conv.in_channels])  # the first channels pass through unchanged

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.pool(self.conv1(x), 2)))
        deeper = F.gelu(self.norm2(self.conv2(x)))
        return F.gelu(self.norm3(self.conv3(deeper)) + x) if self.bridged else deeper


def _conv_and_norm(in_channels: int, out_channels: int, options: SpeedNetOptions) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    norm = nn.BatchNorm2d(out_channels, momentum=options.momentum)
    norm.weight.requires_grad_(False)  # the next convolution scales anyway
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), norm


class SpeedNet(nn.Module):
    """Six 3×3 convolutions over whitened 2×2 patches; of depth 3, nine.

    Images (N, C, H, W) in [0, 1], of at least 9×9 pixels; logits (N, classes). The design follows the published
    description of Keller Jordan, *94% on CIFAR-10 in 3.29 seconds on a single GPU* (2024): frozen whitening layer
    (after Page 2019), identity-like initialisation, norms without scale, GELU, max-pooling, scaled logits.
    """

    def __init__(self, *, classes: int, in_channels: int, normalize: Normalize, options: SpeedNetOptions) -> None:
        super().__init__()
        self.normalize = normalize
        self.whitening = Whitening(in_channels, train_bias=options.train_whitening_bias)
        channels = (self.whitening.out_channels, *options.widths)
        self.blocks = nn.Sequential(*(SpeedBlock(channels[i], channels[i + 1], options=options) for i in range(3)))
        self.head = nn.Linear(channels[3], classes, bias=False)
        self.logit_scale = options.logit_scale
        self.whitening_epsilon = options.whitening_epsilon
        self.mirrored = options.mirrored

    def forward(self, images: Tensor) -> Tensor:
        if self.mirrored and not self.training:
            return (self._see(images) + self._see(images.flip(3))) / 2
        return self._see(images)

    def _see(self, images: Tensor) -> Tensor:
        x = F.gelu(self.whitening(self.normalize(images)))
        return self.head(self.blocks(x).amax(dim=(2, 3))) * self.logit_scale  # type: ignore[no-any-return]

    def initialize_from(self, images: Tensor) -> None:
        """Fit the whitening layer to ``images`` float (N, C, H, W) in [0, 1]; a few thousand are enough."""
        self.whitening.fit_to(self.normalize(images), epsilon=self.whitening_epsilon)


def build_speednet(
    *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object]
) -> SpeedNet:
    if min(image_shape[1:]) < SMALLEST:
        got = "×".join(map(str, image_shape[1:]))
        raise ModelError("speednet: image size", expected=f"at least {SMALLEST}×{SMALLEST} pixels", got=got)
    chosen = SpeedNetOptions.parse(dict(options), where="speednet")
    return SpeedNet(classes=classes, in_channels=image_shape[0], normalize=normalize, options=chosen)
