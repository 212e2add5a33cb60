"""Every operation against PIL, byte for byte: all sizes from 1×1, grey and colour; kernels and plain torch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import functional as TF

from assay.augment.plan import apply_operation
from oracles import torch_operations

BOTH = pytest.mark.parametrize("apply", [apply_operation, torch_operations.apply_operation], ids=["kernels", "torch"])
NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR


def to_pil(image):
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def from_pil(picture):
    array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def shear(horizontal, vertical):
    def change(picture, slope, resample=NEAREST):
        matrix = (1, slope if horizontal else 0, 0, slope if vertical else 0, 1, 0)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample)

    return change


def translate(right, down):
    def change(picture, pixels):
        matrix = (1, 0, -int(pixels) * right, 0, 1, -int(pixels) * down)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix)

    return change


def posterize(picture, bits):
    return picture.point(lambda _: 0) if int(bits) == 0 else ImageOps.posterize(picture, int(bits))


PIL_OPERATIONS = {
    "ShearX": (shear(True, False), st.floats(-3, 3)),
    "ShearY": (shear(False, True), st.floats(-3, 3)),
    "TranslateX": (translate(1, 0), st.floats(-30, 30)),
    "TranslateY": (translate(0, 1), st.floats(-30, 30)),
    "Rotate": (
        lambda picture, angle: picture.rotate(angle),
        st.floats(-400, 400) | st.integers(-24, 24).map(lambda k: 15 * k),
    ),
    "Brightness": (lambda picture, f: ImageEnhance.Brightness(picture).enhance(f), st.floats(0, 4)),
    "Color": (lambda picture, f: ImageEnhance.Color(picture).enhance(f), st.floats(0, 4)),
    "Contrast": (lambda picture, f: ImageEnhance.Contrast(picture).enhance(f), st.floats(0, 4)),
    "Sharpness": (lambda picture, f: ImageEnhance.Sharpness(picture).enhance(f), st.floats(0, 30)),
    "Posterize": (posterize, st.integers(0, 8)),
    "Solarize": (ImageOps.solarize, st.integers(0, 256) | st.floats(0, 256)),
    "Equalize": (lambda picture, _: ImageOps.equalize(picture), st.just(0)),
    "AutoContrast": (lambda picture, _: ImageOps.autocontrast(picture), st.just(0)),
    "Invert": (lambda picture, _: ImageOps.invert(picture), st.just(0)),
    "Hue": (TF.adjust_hue, st.floats(-0.5, 0.5)),
    "Flip": (lambda picture, _: ImageOps.mirror(picture), st.just(0)),
}
KINDS = ("noise", "flat", "few levels", "ramp", "dark")


@st.composite
def pictures(draw, largest=24):
    channels, height, width = (
        draw(st.sampled_from([1, 3])),
        draw(st.integers(1, largest)),
        draw(st.integers(1, largest)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (channels, height, width)
    noise = torch.randint(0, 256, shape, generator=generator)
    match draw(st.sampled_from(KINDS)):
        case "noise":
            image = noise
        case "flat":
            image = torch.full(shape, draw(st.integers(0, 255)))
        case "few levels":
            image = noise // 86 * 100
        case "ramp":
            image = torch.linspace(0, 255, math.prod(shape)).reshape(shape)
        case _:
            image = 40 + noise // 8
    return image.byte()


@BOTH
@pytest.mark.parametrize("name", PIL_OPERATIONS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_equals_pil(name, apply, data):
    oracle, magnitudes = PIL_OPERATIONS[name]
    image, magnitude = data.draw(pictures()), data.draw(magnitudes)
    expected = from_pil(oracle(to_pil(image), magnitude))
    result = apply(image[None], name, magnitude)[0]
    assert torch.equal(result, expected)


@BOTH
@pytest.mark.parametrize("name", ["ShearX", "ShearY", "Rotate"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bilinear_equals_pil(name, apply, data):
    image, magnitude = data.draw(pictures()), data.draw(PIL_OPERATIONS[name][1])
    picture = to_pil(image)
    expected = (
        picture.rotate(magnitude, BILINEAR)
        if name == "Rotate"
        else PIL_OPERATIONS[name][0](picture, magnitude, BILINEAR)
    )
    result = apply(image[None], name, magnitude, interpolation="bilinear")[0]
    assert (result.int() - from_pil(expected).int()).abs().max() <= 1


@BOTH
@pytest.mark.parametrize("name", [name for name in PIL_OPERATIONS if name not in {"Hue"}])
def test_equals_pil_on_a_photograph(name, apply):
    skimage_data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(skimage_data.chelsea().transpose(2, 0, 1).copy())
    oracle = PIL_OPERATIONS[name][0]
    for magnitude in {"Posterize": (3,), "Solarize": (200,), "Rotate": (20, 33.3, 90, 180)}.get(name, (0.5, 2.0, 20.0)):
        expected = from_pil(oracle(to_pil(image), magnitude))
        assert torch.equal(apply(image[None], name, magnitude)[0], expected)


@BOTH
def test_far_warps_leave_the_fixed_point_arithmetic_as_pil_does(apply):
    image = torch.randint(0, 256, (3, 700, 300), dtype=torch.uint8)
    for name in ("ShearX", "ShearY"):
        for slope in (-47.3, 80.123, 99.9):
            expected = from_pil(PIL_OPERATIONS[name][0](to_pil(image), slope))
            assert torch.equal(apply(image[None], name, slope)[0], expected)


@BOTH
def test_every_colour_turns_its_hue_as_pil_does(apply):
    levels = torch.arange(0, 256, 5)
    image = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 52, -1).byte()
    for turn in (-0.5, -0.21, 0.0, 0.1, 0.3, 0.5):
        expected = from_pil(TF.adjust_hue(to_pil(image), turn))
        assert torch.equal(apply(image[None], "Hue", turn)[0], expected)


@BOTH
@pytest.mark.parametrize("fill", [0, 77, (1, 2, 3)])
def test_fill_shows_where_the_picture_has_left(fill, apply):
    image = torch.randint(0, 256, (3, 15, 11), dtype=torch.uint8)
    colour = (fill,) * 3 if isinstance(fill, int) else fill
    expected = from_pil(to_pil(image).rotate(31, fillcolor=colour))
    assert torch.equal(apply(image[None], "Rotate", 31, fill=fill)[0], expected)
