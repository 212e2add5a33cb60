from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms.functional import InterpolationMode, pil_to_tensor

from assay.augment.plan import apply_operation
from assay.errors import DataError, OptionError
from assay.records.preparation import Preparation
from assay.views.context import Limits
from assay.views.picture import apply_operations, pick_sample, read_picture, sample_at


def test_a_sample_is_found_by_its_id_and_by_the_name_that_reports_use(network_context):
    by_place = sample_at(network_context.dataset, 7)
    for said in (26, "26", "test/26"):
        assert torch.equal(pick_sample(network_context.dataset, said).image, by_place.image)
    assert by_place.words == ("--sample", "26")
    for unknown in ("7x", "-1", "1", "train/26", "../26"):
        with pytest.raises(DataError, match="--sample: expected a sample of made such as test/5"):
            pick_sample(network_context.dataset, unknown)


def test_a_place_beyond_the_data_is_refused(network_context):
    with pytest.raises(DataError, match=r"sample: expected 0\.\.39, got 40"):
        sample_at(network_context.dataset, 40)


@pytest.mark.parametrize(("width", "height"), [(8, 8), (100, 30), (3, 90), (1, 1)])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 3), ("P", 3)])
def test_any_picture_takes_the_shape_of_the_model(png, width, height, mode, channels):
    found = read_picture(png(width, height, mode=mode), name="a b.png", shape=(channels, 8, 12))
    assert found.image.shape == (channels, 8, 12)
    assert found.image.dtype == torch.uint8
    assert found.label is None
    assert found.words == ("--image", "a b.png")


def test_a_picture_of_the_right_size_is_not_touched(network_context, png):
    content = png(8, 8)
    found = read_picture(content, name="x.png", shape=(3, 8, 8))
    with Image.open(io.BytesIO(content)) as file:
        assert [*found.image[:, 5, 2].tolist()] == list(file.getpixel((2, 5)))


def test_what_was_guessed_of_a_picture_is_told():
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)).save(buffer, format="PNG")
    found = read_picture(buffer.getvalue(), name="x.png", shape=(1, 8, 8))
    assert found.image.max() == 255
    assert found.notes == ("x.png: no pixel of 16 bits is above 4095: taken as values of 12 bits",)


def bomb(side: int) -> bytes:
    """A PNG of side² black pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * (side // 8 + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a known format"),
        (b"\x80\x04\x95cos\nsystem\n", "not a picture in a known format"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "got "),
        (bomb(3000), "3000x3000 pixels exceed the limit of 1,000,000"),
        (b"\0" * 300_001, "expected a picture file of at most 0.3 MB, got 0.3 MB"),
    ],
    ids=["empty", "svg", "postscript", "pickle", "damaged", "bomb", "large"],
)
def test_what_is_no_harmless_picture_is_refused_in_one_line(content, message):
    with pytest.raises(DataError) as caught:
        read_picture(content, name="f.png", shape=(3, 8, 8), limits=Limits(upload_bytes=300_000, upload_pixels=10**6))
    assert message in str(caught.value)
    assert str(caught.value).startswith("f.png: expected a picture file")
    assert "\n" not in str(caught.value)


def test_operations_apply_in_their_order_and_are_named(network_context):
    picture = sample_at(network_context.dataset, 0)
    changed = apply_operations(picture, {"Rotate": 20.0, "Brightness": 1.0, "Posterize": 3.0, "Equalize": 0.0})
    wanted = picture.image[None]
    for name, magnitude in (("Rotate", 20.0), ("Posterize", 3.0), ("Equalize", 0.0)):
        wanted = apply_operation(wanted, name, magnitude)
    assert torch.equal(changed.image, wanted[0])
    assert changed.words[2:] == ("--apply", "rotate=20", "--apply", "posterize=3", "--apply", "equalize")
    with pytest.raises(OptionError, match="magnitude of Posterize"):
        apply_operations(picture, {"Posterize": 9.0})


def test_a_picture_of_the_users_is_prepared_as_the_samples_are(png):
    content, preparation = png(30, 20), Preparation.parse("resize=12:bicubic,crop=8")
    ours = read_picture(content, name="x.png", shape=(3, 8, 8), preparation=preparation).image
    theirs = transforms.Compose([transforms.Resize(12, InterpolationMode.BICUBIC), transforms.CenterCrop(8)])
    assert torch.equal(ours, pil_to_tensor(theirs(Image.open(io.BytesIO(content)))))
