"""The image operations and their programs in plain torch: slow, obvious, and the oracle of the compiled kernels.

Every operation takes uint8 (B, C, H, W) and one magnitude a sample, float64 (B,), and gives uint8 of the same shape.
They follow PIL bit for bit: blends are single precision and cut off their fraction, means are rounded, and
nearest-neighbour warps equal PIL's ``Image.transform``.
Reference: Cubuk et al., *AutoAugment*, CVPR 2019, whose operations are those of PIL's ImageOps and ImageEnhance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.augment.operations import OPERATIONS
from assay.augment.plan import plan_operation


def apply_plan(images, plan, *, fill=0, interpolation="nearest"):
    """Step by step, operation by operation, all samples of one operation at once."""
    channels = images.shape[1]
    colour = torch.tensor([fill] * channels if isinstance(fill, int) else list(fill), dtype=torch.uint8)
    output = images.clone()
    for step in range(plan.codes.shape[1]):
        for code in torch.unique(plan.codes[:, step]).tolist():
            if code == 0:
                continue
            chosen = plan.codes[:, step] == code
            output[chosen] = _perform(
                OPERATIONS[code].name,
                output[chosen],
                plan.magnitudes[chosen, step],
                plan.places[chosen, step],
                fill=colour,
                bilinear=interpolation == "bilinear",
            )
    return output


def apply_operation(images, operation, magnitude=0.0, *, place=None, fill=0, interpolation="nearest"):
    """As the function of the same name in the library."""
    plan = plan_operation(images, operation, magnitude, place=place)
    return apply_plan(images, plan, fill=fill, interpolation=interpolation)


def _perform(name: str, images: Tensor, values: Tensor, places: Tensor, *, fill: Tensor, bilinear: bool) -> Tensor:
    if name in POINTWISE_AND_FILTERS:
        return POINTWISE_AND_FILTERS[name](images, values)
    height, width = images.shape[2:]
    pixels, zeros = values.long(), torch.zeros(len(values), dtype=torch.int64)
    match name:
        case "ShearX" | "ShearY":
            maps = shear_maps(values, vertical=name == "ShearY")
            moved = warp(images, maps, fill, bilinear=bilinear)
        case "Rotate":
            maps = rotation_maps(values, height=height, width=width)
            moved = warp(images, maps, fill, bilinear=bilinear)
        case "TranslateX":
            moved = shift(images, zeros, pixels, fill)
        case "TranslateY":
            moved = shift(images, pixels, zeros, fill)
        case "Crop":
            down, right = (pixels[:, None] - places.long()).unbind(dim=1)
            moved = shift(images, down, right, fill)
        case "Cutout":
            moved = cutout(images, values, places, fill)
        case _:
            moved = flip(images)
    return moved


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


POINTWISE_AND_FILTERS = {
    "Brightness": brightness,
    "Contrast": contrast,
    "Posterize": posterize,
    "Solarize": solarize,
    "Equalize": equalize,
    "AutoContrast": autocontrast,
    "Invert": invert,
    "Color": color,
    "Sharpness": sharpness,
    "Hue": hue,
}


def shift(images: Tensor, down: Tensor, right: Tensor, fill: Tensor) -> Tensor:
    """Move sample b by ``down[b]`` and ``right[b]`` whole pixels (int64 (B,))."""
    _, _, height, width = images.shape
    rows = torch.arange(height)[None, :, None] - down[:, None, None]
    columns = torch.arange(width)[None, None, :] - right[:, None, None]
    return _gather(images, rows, columns, fill)


def flip(images: Tensor) -> Tensor:
    """Mirror left and right."""
    return images.flip(3)


def cutout(images: Tensor, sides: Tensor, centres: Tensor, fill: Tensor) -> Tensor:
    """Blank the square of side ⌊side⌋ about the centre (row, column), as far as it lies inside."""
    _, _, height, width = images.shape
    lengths = sides.long()
    top, left = (centres.long() - lengths[:, None] // 2).unbind(dim=1)
    rows = torch.arange(height) - top[:, None]
    columns = torch.arange(width) - left[:, None]
    inside = ((rows >= 0) & (rows < lengths[:, None]))[:, :, None] & ((columns >= 0) & (columns < lengths[:, None]))[
        :, None, :
    ]
    return torch.where(inside[:, None], fill[None, :, None, None], images)


def shear_maps(slopes: Tensor, *, vertical: bool) -> Tensor:
    """Inverse maps (B, 6) of shears about the top-left corner: (x, y) from (x + slope·y, y), or (x, y + slope·x)."""
    maps = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64).repeat(len(slopes), 1)
    maps[:, 3 if vertical else 1] = slopes
    return maps


def rotation_maps(degrees: Tensor, *, height: int, width: int) -> Tensor:
    """Inverse maps (B, 6) of counter-clockwise turns about the centre; sines rounded to 15 digits, as PIL does."""
    angles = -torch.deg2rad(degrees % 360.0)
    cosine, sine = (torch.round(torch.cos(angles), decimals=15), torch.round(torch.sin(angles), decimals=15))
    across = cosine * (-width / 2) + sine * (-height / 2) + width / 2
    along = -sine * (-width / 2) + cosine * (-height / 2) + height / 2
    return torch.stack([cosine, sine, across, -sine, cosine, along], dim=1)


def warp(images: Tensor, maps: Tensor, fill: Tensor, *, bilinear: bool = False) -> Tensor:
    """Pixel (x, y) of the result is read at (a·x + b·y + c, d·x + e·y + f), pixel centres at halves; maps (B, 6)."""
    return _warp_bilinear(images, maps, fill) if bilinear else _warp_nearest(images, maps, fill)


def _warp_nearest(images: Tensor, maps: Tensor, fill: Tensor) -> Tensor:
    """16.16 fixed point where all corners stay within ±2¹⁵, else sums in floating point: both as PIL."""
    _, _, height, width = images.shape
    a, b, c, d, e, f = maps.unbind(dim=1)
    corners = [(x, y) for x in (0, width) for y in (0, height)]
    reach = torch.stack([torch.maximum((x * a + y * b + c).abs(), (x * d + y * e + f).abs()) for x, y in corners])
    fits = reach.amax(dim=0) < 32768.0
    columns = _walk(a, b, c + a * 0.5 + b * 0.5, height=height, width=width, fixed=fits)
    rows = _walk(d, e, f + d * 0.5 + e * 0.5, height=height, width=width, fixed=fits)
    return _gather(images, rows, columns, fill)


def _walk(across: Tensor, down: Tensor, start: Tensor, *, height: int, width: int, fixed: Tensor) -> Tensor:
    """Integer coordinates (B, H, W) of start + x·across + y·down, −1 for negative ones."""
    x, y = torch.arange(width), torch.arange(height)[:, None]
    across_fixed, down_fixed, start_fixed = (
        (value * 65536.0 + 0.5).floor().clamp(-(2.0**40), 2.0**40).long()[:, None, None]
        for value in (across, down, start)
    )
    exact = (start_fixed + x * across_fixed + y * down_fixed) >> 16
    if bool(fixed.all()):
        return exact
    firsts = torch.cat([start[:, None], down[:, None].expand(-1, height - 1)], dim=1).cumsum(dim=1)
    sums = torch.cat([firsts[:, :, None], across[:, None, None].expand(-1, height, width - 1)], dim=2).cumsum(dim=2)
    floating = torch.where(sums < 0, -1.0, sums.clamp(max=2.0**40)).long()
    return torch.where(fixed[:, None, None], exact, floating)


def _gather(images: Tensor, rows: Tensor, columns: Tensor, fill: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = torch.where(inside, rows * width + columns, 0).expand(batch, height, width)
    picked = images.flatten(2).gather(2, places.reshape(batch, 1, -1).expand(-1, channels, -1)).reshape(images.shape)
    return torch.where(inside[:, None], picked, fill[None, :, None, None])


def _warp_bilinear(images: Tensor, maps: Tensor, fill: Tensor) -> Tensor:
    """Double precision, cut off to an integer, the border continued by half a pixel."""
    _, _, height, width = images.shape
    a, b, c, d, e, f = (value[:, None, None] for value in maps.unbind(dim=1))
    x = torch.arange(width, dtype=torch.float64) + 0.5
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    u, v = a * x + b * y + c, d * x + e * y + f
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    left, top = (u - 0.5).floor(), (v - 0.5).floor()
    du, dv = (u - 0.5 - left)[:, None], (v - 0.5 - top)[:, None]
    x0, x1 = left.long().clamp(0, width - 1), (left.long() + 1).clamp(0, width - 1)
    y0, y1 = top.long().clamp(0, height - 1), (top.long() + 1).clamp(0, height - 1)
    blank = torch.zeros_like(fill)
    p, q, r, s = (
        _gather(images, rows, columns, blank).double() for rows, columns in ((y0, x0), (y0, x1), (y1, x0), (y1, x1))
    )
    upper, lower = p + (q - p) * du, r + (s - r) * du
    return torch.where(inside[:, None], (upper + (lower - upper) * dv).byte(), fill[None, :, None, None])
