"""A gallery as one HTML file that asks nothing of the network and runs no script."""

from __future__ import annotations

import base64
import io

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from assay.augment.gallery import Gallery
from assay.report.theme import custom_properties

SMALL = 96  # pictures up to this side are shown enlarged, pixel by pixel
_TILE, _STRIP = 420, 200


def render_gallery(gallery: Gallery) -> str:
    """The page as text, pictures inside; names are escaped. Small pictures stay PNG, photographs become JPEG."""
    environment = Environment(
        loader=PackageLoader("assay.augment"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pixelated = max(_first(gallery).shape[1:]) <= SMALL
    large = gallery.original is None and not pixelated  # what a policy makes of a photograph
    environment.filters["tile"] = lambda image: data_url(image, side=_TILE)
    environment.filters["thumb"] = lambda image: data_url(image, side=_TILE if large else _STRIP)
    return environment.get_template("gallery.html").render(
        gallery=gallery,
        pixelated=pixelated,
        large=large,
        shape=tuple(_first(gallery).shape[1:]),
        light=custom_properties(dark=False),
        dark=custom_properties(dark=True),
    )


def to_picture(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) to a PIL image; of two or four channels the first one or three are shown."""
    pixels = image.numpy()
    return Image.fromarray(pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))


def data_url(image: Tensor, *, side: int) -> str:
    """The picture as a ``data:`` address, made smaller where its longer side exceeds ``side`` pixels."""
    picture = to_picture(image)
    photograph = max(picture.size) > SMALL
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if photograph:
        picture.save(buffer, format="JPEG", quality=86)
    else:
        picture.save(buffer, format="PNG", optimize=True)
    kind = "jpeg" if photograph else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _first(gallery: Gallery) -> Tensor:
    return (gallery.original or gallery.strips[0].tiles[0]).image
