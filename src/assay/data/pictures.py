"""Tensors to PNG files, for galleries and pages."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor


def png_base64(image: Tensor) -> str:
    """A uint8 (C, H, W) picture, C in {1, 3, 4} (of two channels the first is shown), as a PNG file in base64."""
    pixels = image.detach().cpu().numpy()
    if pixels.shape[0] in {1, 2}:
        picture = Image.fromarray(pixels[0])
    else:
        picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def to_bytes(images: Tensor) -> Tensor:
    """Floating pixels in [0, 1], any shape, to uint8 by rounding to the nearest of the 256 grey levels."""
    return images.detach().float().mul(255).round_().clamp_(0, 255).to("cpu").byte()
