"""The size of a picture, as a preparation says: PIL's resampling, and the rounding of the library that stated it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from assay.errors import DataError
from assay.records.preparation import Pair, Preparation

METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


MOST_PIXELS = 1 << 27  # of a resized picture


class Window(NamedTuple):
    """The crop in the resized picture: its corner, which lies outside of a picture that is smaller, and its size."""

    top: int
    left: int
    height: int
    width: int


def prepare_picture(image: Image.Image, preparation: Preparation) -> Image.Image:
    """``image`` resized and cropped; a fill in colour makes a grey picture one in colour.

    Raises ``ValueError`` for a picture so long that resizing its short side would fill the memory.
    """
    size = resized_size((image.height, image.width), preparation)
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, too long to be resized to {size[1]}x{size[0]}")
    if size != (image.height, image.width):
        image = _resize(image, size, preparation)
    if preparation.crop is None or preparation.crop == size:
        return image
    top, left, height, width = crop_window(size, preparation)
    fill = preparation.fill or (0,)
    if height <= size[0] and width <= size[1]:
        return image.crop((left, top, left + width, top + height))
    if len(set(fill)) > 1 and image.mode == "L":
        image = image.convert("RGB")
    canvas = Image.new(image.mode, (width, height), fill[0] if len(image.getbands()) == 1 else fill * (3 // len(fill)))
    canvas.paste(image, (-left, -top))
    return canvas


def _resize(image: Image.Image, size: Pair, preparation: Preparation) -> Image.Image:
    if preparation.antialias:
        return image.resize(size[::-1], METHODS[preparation.interpolation])
    pixels = torch.from_numpy(np.array(image, np.float32))
    planes = pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size=size, mode=preparation.interpolation, align_corners=False)[0]
    most = 65535 if image.mode == "F" else 255
    values = resized.clamp(0, most).round().permute(1, 2, 0).squeeze(2).numpy()
    return Image.fromarray(values if image.mode == "F" else values.astype(np.uint8))


def resized_size(size: Pair, preparation: Preparation) -> Pair:
    """(height, width) after the resizing of a picture of (height, width)."""
    wanted, fit = preparation.resize, preparation.fit
    if wanted is None:
        return size
    if isinstance(wanted, int):
        return _short_side_to(wanted, size, rounding=preparation.rounding)
    if fit == "squash":
        return wanted
    ratios = [side / target for side, target in zip(size, wanted, strict=True)]
    ratio = max(ratios) if fit == "border" else min(ratios)
    height, width = (max(1, round(side / ratio)) for side in size)
    return height, width


def _short_side_to(length: int, size: Pair, *, rounding: str) -> Pair:
    short, long = min(size), max(size)
    other = max(length, round(long * length / short)) if rounding == "assay" else int(length * long / short)
    return (length, other) if size[0] <= size[1] else (other, length)


def crop_window(size: Pair, preparation: Preparation) -> Window:
    """Where the crop at the centre of a picture of (height, width) lies; the right and lower margins are the larger."""
    height, width = preparation.crop or size
    corner = [
        -((wanted - side) // 2)
        if wanted > side and preparation.rounding != "transformers"
        else round((side - wanted) / 2.0)
        if preparation.rounding == "torchvision"
        else (side - wanted) // 2
        for side, wanted in zip(size, (height, width), strict=True)
    ]
    return Window(corner[0], corner[1], height, width)


def prepare_all(images: Tensor, preparation: Preparation | None) -> Tensor:
    """Every image of uint8 (N, C, H, W) resized and cropped, as :func:`prepare_picture` does; None: unchanged."""
    if preparation is None or not preparation.is_geometric or not len(images):
        return images
    height, width = images.shape[2:]
    size = resized_size((height, width), preparation)
    if size == (height, width) and preparation.crop in {None, size}:
        return images
    if size[0] * size[1] > MOST_PIXELS:
        raise DataError("images", expected=f"pictures that fit {preparation.spelled}", got=f"{width}x{height} pixels")
    if images.shape[1] == 3 or (images.shape[1] == 1 and len(set(preparation.fill or (0,))) > 1):
        pictures = (_picture(image.numpy()) for image in images)
        return _stack([np.asarray(prepare_picture(each, preparation)) for each in pictures])
    planes = images.numpy().reshape(-1, height, width)  # channels of other meanings, each by itself
    prepared = _stack([np.asarray(prepare_picture(Image.fromarray(plane), preparation)) for plane in planes])
    return prepared.reshape(*images.shape[:2], *prepared.shape[2:])


def _picture(planes: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0)))


def _stack(pictures: list[NDArray[Any]]) -> Tensor:
    """uint8 (N, C, H, W) of pictures (H, W) or (H, W, 3)."""
    stacked = np.stack(pictures)
    return torch.from_numpy(stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2).copy())


def sizes_for(share: float, crop: Pair) -> Pair:
    """The size from which a crop takes the ``share`` of each side, rounded down, as timm does."""
    height, width = (math.floor(side / share) for side in crop)
    return height, width
