"""A plan in pure torch: step by step, operation by operation, all samples of one operation at once."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.augment import definitions, warps
from assay.augment.operations import OPERATIONS

_BY_MAGNITUDE = {
    "Brightness": definitions.brightness,
    "Contrast": definitions.contrast,
    "Posterize": definitions.posterize,
    "Solarize": definitions.solarize,
    "Equalize": definitions.equalize,
    "AutoContrast": definitions.autocontrast,
    "Invert": definitions.invert,
    "Color": definitions.color,
    "Sharpness": definitions.sharpness,
    "Hue": definitions.hue,
}


def run_torch(
    images: Tensor, codes: Tensor, magnitudes: Tensor, places: Tensor, *, fill: Tensor, bilinear: bool
) -> Tensor:
    """See :func:`assay.augment.plan.apply_plan`, whose checks it relies on."""
    output = images.clone()
    for step in range(codes.shape[1]):
        for code in torch.unique(codes[:, step]).tolist():
            if code == 0:
                continue
            chosen = codes[:, step] == code
            output[chosen] = _perform(
                OPERATIONS[code].name,
                output[chosen],
                magnitudes[chosen, step],
                places[chosen, step],
                fill=fill,
                bilinear=bilinear,
            )
    return output


def _perform(name: str, images: Tensor, values: Tensor, places: Tensor, *, fill: Tensor, bilinear: bool) -> Tensor:
    if name in _BY_MAGNITUDE:
        return _BY_MAGNITUDE[name](images, values)
    height, width = images.shape[2:]
    whole, still = values.long(), torch.zeros(len(values), dtype=torch.int64)
    match name:
        case "ShearX" | "ShearY":
            maps = warps.shear_maps(values, vertical=name == "ShearY")
            moved = warps.warp(images, maps, fill, bilinear=bilinear)
        case "Rotate":
            maps = warps.rotation_maps(values, height=height, width=width)
            moved = warps.warp(images, maps, fill, bilinear=bilinear)
        case "TranslateX":
            moved = warps.shift(images, still, whole, fill)
        case "TranslateY":
            moved = warps.shift(images, whole, still, fill)
        case "Crop":
            down, right = (whole[:, None] - places.long()).unbind(dim=1)
            moved = warps.shift(images, down, right, fill)
        case "Cutout":
            moved = warps.cutout(images, values, places, fill)
        case _:
            moved = warps.flip(images)
    return moved
