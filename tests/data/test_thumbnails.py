"""Pictures for pages: exact where they are small, small files where they are large."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from assay.data.pictures import png_base64, thumbnail_base64
from assay.report.parts import read_picture
from assay.wording import picture_type, picture_url


def gradient(channels: int, height: int, width: int) -> torch.Tensor:
    x = torch.linspace(0, 255, width)[None, None, :].expand(channels, height, width)
    return x.byte()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_large_image_is_a_small_jpeg_of_its_shape(channels: int) -> None:
    image = gradient(channels, 224, 300)
    encoded = thumbnail_base64(image)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as shown:
        assert shown.format == "JPEG" and shown.size == (192, 143)
        assert np.abs(np.asarray(shown.convert("L"), float).mean() - 127.5) < 2
    picture = read_picture(encoded, text="")
    assert picture is not None and (picture.width, picture.height) == (192, 143)
    assert picture.url == picture_url(encoded) and picture.url.startswith("data:image/jpeg;base64,/9j/")


def test_a_thumbnail_has_two_pixels_a_point_of_a_gallery_or_as_many_as_are_asked_for() -> None:
    image = gradient(3, 300, 400)
    for options, size in (({}, (192, 144)), ({"largest": 512}, (400, 300))):
        with Image.open(io.BytesIO(base64.b64decode(thumbnail_base64(image, **options)))) as shown:
            assert shown.size == size


def test_a_small_or_transparent_image_is_kept_exactly() -> None:
    for image in (gradient(3, 128, 100), gradient(4, 300, 300)):
        encoded = thumbnail_base64(image)
        assert encoded == png_base64(image) and picture_type(encoded) == "png"
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as shown:
            assert np.array_equal(np.asarray(shown).transpose(2, 0, 1), image.numpy())


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\xff\xd8\xff\xc0\x00", b"GIF89a" * 9]
)
def test_what_is_no_whole_picture_is_none(content: bytes) -> None:
    assert read_picture(base64.b64encode(content).decode(), text="") is None
    assert read_picture("<script>", text="") is None
