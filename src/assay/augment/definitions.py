"""What each operation means, on a batch: the pure-torch path, the oracle of the compiled one and its stand-in.

Every function takes uint8 (B, C, H, W) and one magnitude a sample, float64 (B,), and gives uint8 of the same shape.
They follow PIL bit for bit: blends are single precision and cut off their fraction, means are rounded.
Reference: Cubuk et al., *AutoAugment*, CVPR 2019, whose operations are those of PIL's ImageOps and ImageEnhance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Factor × value: a blend with black."""
    return _blend(torch.zeros_like(images), images, factors)


def color(images: Tensor, factors: Tensor) -> Tensor:
    """Grey + factor × (value − grey), grey the luma of the pixel; one channel is its own luma."""
    return _blend(_luma(images), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Mean + factor × (value − mean), mean the rounded average of the luma."""
    means = _luma(images).double().mean(dim=(1, 2, 3), keepdim=True)
    return _blend((means + 0.5).long(), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Smooth + factor × (value − smooth), smooth = (1 1 1; 1 5 1; 1 1 1)/13 rounded, the border copied."""
    batch, channels, height, width = images.shape
    smooth = images.clone()
    if height >= 3 and width >= 3:
        weights = torch.ones(1, 1, 3, 3, dtype=torch.float64)
        weights[..., 1, 1] = 5
        sums = F.conv2d(images.double().reshape(batch * channels, 1, height, width), weights)
        smooth[:, :, 1:-1, 1:-1] = (sums / 13 + 0.5).reshape(batch, channels, height - 2, width - 2).byte()
    return _blend(smooth, images, factors)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest ⌊bits⌋ bits of every value; 0 bits is black."""
    return images & (256 - 2 ** (8 - bits.long())).byte()[:, None, None, None]


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """255 − value where the value is at or above the threshold."""
    return torch.where(images.double() >= thresholds[:, None, None, None], 255 - images, images)


def invert(images: Tensor, _: Tensor) -> Tensor:
    """255 − value."""
    return 255 - images


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """PIL's step table: v to ⌊(step/2 + pixels below v) / step⌋, step = ⌊pixels outside the top level / 255⌋."""
    counts = _histograms(images)
    total = counts.sum(dim=-1, keepdim=True)
    top = 255 - (counts > 0).int().flip(-1).argmax(dim=-1, keepdim=True)
    steps = (total - counts.gather(-1, top)) // 255
    below = counts.cumsum(dim=-1) - counts
    tables = ((steps // 2 + below) // steps.clamp(min=1)).clamp(max=255)
    return _look_up(images, torch.where(steps > 0, tables, torch.arange(256)))


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched so that its least value becomes 0 and its greatest 255, cut off to an integer."""
    low = images.amin(dim=(2, 3)).double()[..., None]
    high = images.amax(dim=(2, 3)).double()[..., None]
    scale = torch.div(torch.tensor(255.0).double(), (high - low).clamp(min=1))  # `255 / tensor` rounds twice
    values = torch.arange(256, dtype=torch.float64)
    tables = (values * scale + -low * scale).trunc().clamp(0, 255)
    return _look_up(images, torch.where(high > low, tables, values))


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour circle by ⌊255·turn⌋ of its 256 steps, in PIL's byte-valued HSV; one channel has no hue."""
    if images.shape[1] == 1:
        return images.clone()
    angles, saturations, values = _to_hsv(images)
    turned = (angles + (turns * 255).long()[:, None, None]) % 256
    return _from_hsv(turned, saturations, values)


def _blend(first: Tensor, second: Tensor, factors: Tensor) -> Tensor:
    base = first.float()
    mixed = base + factors.float()[:, None, None, None] * (second.float() - base)
    return mixed.clamp_(0, 255).byte()


def _luma(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 1, H, W): ITU-R 601 in 16-bit fixed point, rounded."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([19595, 38470, 7471])[:, None, None]
    return ((images.long() * weights).sum(dim=1, keepdim=True) + 0x8000).bitwise_right_shift(16)


def _histograms(images: Tensor) -> Tensor:
    flat = images.flatten(2).long()
    return torch.zeros(*flat.shape[:2], 256, dtype=torch.int64).scatter_add_(2, flat, torch.ones_like(flat))


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """``tables`` (B, C, 256)."""
    return tables.byte().gather(2, images.flatten(2).long()).reshape(images.shape)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three int64 (B, H, W); single and double precision alternate exactly as in PIL's C."""
    red, green, blue = images.long().unbind(dim=1)
    high, low = images.long().amax(dim=1), images.long().amin(dim=1)
    spread = (high - low).clamp(min=1).float()
    from_red, from_green, from_blue = ((high - channel).float() / spread for channel in (red, green, blue))
    sextant = torch.where(
        red == high,
        (from_blue - from_green).double(),
        torch.where(
            green == high,
            (2.0 + from_red.double() - from_blue.double()).float().double(),
            (4.0 + from_green.double() - from_red.double()).float().double(),
        ),
    )
    angles = ((sextant / 6.0 + 1.0) % 1.0).float().double().mul(255.0).long()
    saturations = (spread / high.clamp(min=1).float()).double().mul(255.0).long()
    grey = high == low
    return angles.masked_fill(grey, 0), saturations.masked_fill(grey, 0), high


def _from_hsv(angles: Tensor, saturations: Tensor, values: Tensor) -> Tensor:
    scaled = angles.double() * 6.0 / 255.0
    sextant = scaled.floor()
    rest = (scaled - sextant).float()
    share = (saturations.double() / 255.0).float()
    value = values.double()
    p = (value * (1.0 - share.double()) + 0.5).floor().long()
    q = (value * (1.0 - (share * rest).double()) + 0.5).floor().long()
    t = (value * (1.0 - share.double() * (1.0 - rest.double())) + 0.5).floor().long()
    candidates = torch.stack([values, q, p, p, t, values]).clamp(0, 255)  # red in each sextant
    place = sextant.long() % 6
    channels = [candidates.gather(0, ((place + turn) % 6)[None])[0] for turn in (0, 4, 2)]
    return torch.where((saturations == 0)[:, None], values[:, None], torch.stack(channels, dim=1)).byte()
