"""Geometry on a batch, in pure torch: for every target pixel, where in the source it comes from.

As in ``definitions.py`` the input is uint8 (B, C, H, W) with one magnitude a sample, the output uint8 of the same
shape, and nearest-neighbour results equal PIL's ``Image.transform`` bit for bit. ``fill`` is uint8 (C,), shown where
nothing of the picture lands.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
