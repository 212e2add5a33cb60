from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from assay.data import pictures as decode_module
from assay.data.pictures import Broken, Encoded, decode, decode_pictures
from assay.data.reading import Reading
from assay.errors import DataError


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def decode_all(contents: list[bytes | Path | None], **options: object) -> decode_module.Decoded:
    samples = [Encoded(f"sample {index}", content) for index, content in enumerate(contents)]
    return decode_pictures(samples, count=len(samples), reading=Reading(**options), where="set")


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_lossless_pictures_come_back_bit_for_bit(pixels: np.ndarray) -> None:
    decoded = decode_all([encode(Image.fromarray(image)) for image in pixels])
    assert np.array_equal(decoded.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert decoded.indices.tolist() == list(range(len(pixels)))
    assert decoded.skipped == ()


def test_order_is_kept_over_many_tasks() -> None:
    contents = [encode(Image.new("L", (2, 2), value % 256)) for value in range(3 * decode_module.CHUNK + 5)]
    decoded = decode_all(contents)
    assert decoded.images[:, 0, 0, 0].tolist() == [value % 256 for value in range(len(contents))]


RED = (200, 10, 30)
deep = Image.fromarray(np.array([[0, 257], [65535, 25700]], np.uint16))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encode(Image.new("L", (2, 2), 7)), np.full((2, 2), 7)),
        (encode(Image.new("1", (2, 2), 1)), np.full((2, 2), 255)),
        (encode(Image.new("LA", (2, 2), (9, 0))), np.full((2, 2), 9)),
        (encode(deep), np.array([[0, 1], [255, 100]])),
        (encode(deep, "TIFF"), np.array([[0, 1], [255, 100]])),
        (encode(Image.new("RGBA", (2, 2), (*RED, 0))), np.full((2, 2, 3), RED)),
        (encode(Image.new("RGB", (2, 2), RED).quantize(4)), np.full((2, 2, 3), RED)),
        (encode(Image.new("RGB", (2, 2), RED).quantize(4), transparency=b"\x00"), np.full((2, 2, 3), RED)),
        (encode(Image.new("CMYK", (2, 2), (55, 245, 225, 0)), "TIFF"), np.full((2, 2, 3), RED)),
        (encode(Image.new("RGB", (2, 2), RED), "BMP"), np.full((2, 2, 3), RED)),
        (encode(Image.new("RGB", (2, 2), RED), "PPM"), np.full((2, 2, 3), RED)),
        (encode(Image.new("RGB", (2, 2), RED), "WEBP", lossless=True), np.full((2, 2, 3), RED)),
    ],
    ids=[
        "grey",
        "bits",
        "grey+alpha",
        "16-bit",
        "16-bit tiff",
        "RGBA",
        "palette",
        "palette+alpha",
        "CMYK",
        "BMP",
        "PPM",
        "WEBP",
    ],
)
def test_every_mode_becomes_grey_or_rgb_bytes(content: bytes, expected: np.ndarray) -> None:
    pixels = decode(content)
    assert isinstance(pixels, np.ndarray)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected)


ALPHA = np.array([[0, 128, 255]], np.uint8)


def transparent(mode: str) -> Image.Image:
    """Three pixels of colour 10, one hidden, one half, one opaque."""
    colours = np.full((1, 3, len(mode)), 10, np.uint8)
    colours[..., -1] = ALPHA
    return Image.fromarray(colours, mode)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_hidden_colours_are_laid_over_white_and_it_is_told(mode: str) -> None:
    pixels = decode(encode(transparent(mode)))
    expected = np.rint(ALPHA / 255 * 10 + (255 - ALPHA.astype(float)))  # αx + (1 − α)·255
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == ((1, 3) if mode == "LA" else (1, 3, 3))
    assert np.abs(pixels.reshape(3, -1)[:, 0] - expected[0]).max() <= 1
    decoded = decode_all([encode(transparent(mode)), encode(Image.new("RGB", (3, 1)))])
    assert "set: transparency was laid over white: 1 picture (sample 0)" in decoded.notes


def test_the_colour_that_a_png_declares_transparent_is_white() -> None:
    grey = Image.fromarray(np.array([[3, 90]], np.uint8))
    assert decode(encode(grey, transparency=3)).tolist() == [[255, 90]]
    palette = Image.fromarray(np.array([[[9, 9, 9], [200, 0, 0]]], np.uint8)).quantize(2)
    hidden = palette.getpixel((0, 0))
    assert decode(encode(palette, transparency=hidden)).tolist() == [[[255, 255, 255], [200, 0, 0]]]


def test_an_alpha_channel_that_hides_everything_is_ignored_and_told() -> None:
    decoded = decode_all([encode(Image.new("RGBA", (2, 2), (*RED, 0)))])
    assert decoded.images[0, :, 0, 0].tolist() == list(RED)
    assert any(
        "a transparency that hides everything was ignored: 1 picture (sample 0)" in note for note in decoded.notes
    )
    opaque = decode_all([encode(Image.new("RGBA", (2, 2), (*RED, 255)))])
    assert opaque.notes == ()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_it_is_told(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), (value, value, value)) for value in (200, 90, 40)]
    content = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    decoded = decode_all([content, encode(frames[0])])
    assert decoded.images.unique().tolist() == [200]
    assert decoded.notes == ("set: only the first frame was used: 1 picture (sample 0)",)


def test_a_colour_profile_other_than_srgb_is_told() -> None:
    srgb, lab = (ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("sRGB", "LAB"))
    contents = [encode(Image.new("RGB", (2, 2), RED), icc_profile=profile) for profile in (srgb, lab)]
    assert decode_all(contents).notes == ("set: a colour profile other than sRGB was ignored: 1 picture (sample 1)",)


def test_the_orientation_in_a_tiff_is_applied() -> None:
    image = Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8))
    assert decode(encode(image, "TIFF", tiffinfo={274: 3})).tolist() == [[4, 3], [2, 1]]


def test_a_picture_without_pixels_is_broken() -> None:
    assert isinstance(decode(b"P5 0 4 255 "), Broken)
    assert isinstance(decode(b"BM" + bytes(24) + b"\0" * 40), Broken)


def test_a_truncated_picture_is_broken_whatever_its_format() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        content = encode(noise, kind)
        assert isinstance(decode(content[: len(content) // 2]), Broken), kind


def test_a_jpeg_is_close_to_what_was_saved() -> None:
    pixels = decode(encode(Image.new("RGB", (16, 16), RED), "JPEG", quality=95))
    assert isinstance(pixels, np.ndarray)
    assert np.abs(pixels.astype(int) - RED).max() <= 3


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    pixels = decode(encode(Image.new("CMYK", (16, 16), (55, 245, 225, 0)), "JPEG", quality=95))
    assert isinstance(pixels, np.ndarray)
    assert np.abs(pixels.astype(int) - RED).max() <= 4


def test_the_orientation_of_a_camera_is_applied() -> None:
    image = Image.new("L", (4, 2), 0)
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    pixels = decode(encode(image, exif=exif))
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (4, 2)
    assert pixels[0, 1] == 255


def test_one_coloured_picture_makes_all_of_them_three_channels() -> None:
    grey, colour = encode(Image.new("L", (2, 2), 50)), encode(Image.new("RGB", (2, 2), RED))
    assert decode_all([grey, grey]).images.shape == (2, 1, 2, 2)
    mixed = decode_all([grey, colour]).images
    assert mixed[0, :, 0, 0].tolist() == [50, 50, 50]
    assert mixed[1, :, 0, 0].tolist() == list(RED)


def test_broken_pictures_are_skipped_and_named(make_png: Callable[..., bytes], tmp_path: Path) -> None:
    good = make_png()
    contents = [good, b"nothing", good, good[:60], None, b"", tmp_path / "absent.png", good]
    decoded = decode_all(contents, max_bad=5)
    assert decoded.indices.tolist() == [0, 2, 7]
    assert len(decoded.images) == 3
    assert [line.partition(": ")[0] for line in decoded.skipped] == [f"sample {i}" for i in (1, 3, 4, 5, 6)]
    assert decoded.skipped[0] == "sample 1: not a picture in a known format"
    assert "empty" in decoded.skipped[3]
    assert "No such file" in decoded.skipped[4]


def test_one_broken_picture_too_many_is_an_error_naming_the_first(make_png: Callable[..., bytes]) -> None:
    contents = [make_png(), b"first", make_png(), b"second"]
    assert len(decode_all(contents, max_bad=2).skipped) == 2
    with pytest.raises(DataError, match=r"^sample 1: expected a readable image .*--max-bad.*, got not a picture"):
        decode_all(contents, max_bad=1)
    with pytest.raises(DataError, match=r"^sample 1: "):
        decode_all(contents)


def test_nothing_but_broken_pictures_is_an_error() -> None:
    with pytest.raises(DataError, match=r"set: expected at least one readable image, got none \(2 broken\)"):
        decode_all([b"x", b"y"], max_bad=9)


def test_different_sizes_are_an_error_naming_two_pictures(make_png: Callable[..., bytes]) -> None:
    contents = [make_png(size=(8, 6)), make_png(size=(8, 6)), make_png(size=(9, 6))]
    with pytest.raises(DataError, match=r"sample 2: expected 8x6 pixels as in sample 0.*--image-size.*got 9x6"):
        decode_all(contents)


def test_image_size_makes_them_one(make_png: Callable[..., bytes]) -> None:
    contents = [make_png(size=size) for size in [(8, 6), (6, 8), (40, 7), (3, 5)]]
    assert decode_all(contents, image_size=6).images.shape == (4, 3, 6, 6)


def test_image_size_resizes_the_short_side_and_cuts_the_centre_out() -> None:
    image = Image.new("L", (40, 20), 0)
    image.paste(100, (10, 0, 30, 20))  # the centre square
    assert np.array_equal(decode(encode(image), image_size=10)[:, 1:-1], np.full((10, 8), 100))


def test_a_decompression_bomb_is_a_broken_picture(
    monkeypatch: pytest.MonkeyPatch, make_png: Callable[..., bytes]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    slightly, vastly = decode(make_png(size=(8, 8))), decode(make_png(size=(20, 20)))
    assert isinstance(slightly, Broken)
    assert isinstance(vastly, Broken)
    assert "exceed" in slightly.reason
    assert "exceed" in vastly.reason


def test_only_plain_raster_formats_are_tried() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\n"
    assert decode(eps) == Broken("not a picture in a known format")


def test_floating_pixels_are_refused_with_the_reason() -> None:
    found = decode(encode(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))
    assert found == Broken("floating-point pixels have no known scale")


def test_the_source_is_never_read_far_ahead(make_png: Callable[..., bytes]) -> None:
    drawn = 0

    def source() -> object:
        nonlocal drawn
        for index in range(100_000):
            drawn += 1
            yield Encoded(str(index), make_png() if index == 0 else b"broken")

    with pytest.raises(DataError):
        decode_pictures(source(), count=100_000, reading=Reading(), where="set")
    assert drawn < 100 * decode_module.CHUNK


@pytest.mark.parametrize(
    ("side", "threads"), [(8, {"MainThread"}), (64, {"MainThread"}), (65, {"MainThread", "decode"})]
)
def test_only_larger_pictures_are_decoded_by_threads(
    side: int, threads: set[str], monkeypatch: pytest.MonkeyPatch, png: Callable[..., bytes]
) -> None:
    seen: list[str] = []
    original = decode_module.decode_picture

    def decode(*args: object, **options: object) -> object:
        seen.append(threading.current_thread().name.split("_")[0])
        return original(*args, **options)

    monkeypatch.setattr(decode_module, "decode_picture", decode)
    files = [Encoded(str(i), png(side, side) if i != 3 else b"broken") for i in range(12)]
    decoded = decode_pictures(files, count=12, reading=Reading(max_bad=1), where="made")
    assert set(seen) == threads and len(seen) == 12
    assert decoded.indices.tolist() == [i for i in range(12) if i != 3] and len(decoded.skipped) == 1


def test_many_small_pictures_are_decoded_by_processes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [encode(Image.new("L", (2, 2), value % 256)) for value in range(60)]
    contents[30] = b"broken"
    alone = decode_all(list(contents), max_bad=1)
    started: list[int] = []
    original = decode_module.forked_pool
    monkeypatch.setattr(decode_module, "FEW", 5)
    monkeypatch.setattr(decode_module, "CHUNK_OF_PROCESS", 7)
    monkeypatch.setattr(decode_module, "forked_pool", lambda workers: started.append(workers) or original(workers))
    together = decode_all(list(contents), max_bad=1)
    assert started and torch.equal(together.images, alone.images)
    assert torch.equal(together.indices, alone.indices) and together.skipped == alone.skipped
    monkeypatch.setattr(decode_module, "can_fork", lambda: False)
    started.clear()
    assert torch.equal(decode_all(list(contents), max_bad=1).images, alone.images) and not started


def test_a_killed_process_loses_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [encode(Image.new("L", (2, 2), value)) for value in range(40)]
    alone, here = decode_all(list(contents)), os.getpid()
    original = decode_module.decode_picture

    def decode_or_die(content: object, **options: object) -> object:
        if os.getpid() != here and content == contents[20]:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(content, **options)

    monkeypatch.setattr(decode_module, "FEW", 5)
    monkeypatch.setattr(decode_module, "CHUNK_OF_PROCESS", 4)
    monkeypatch.setattr(decode_module, "decode_picture", decode_or_die)
    assert torch.equal(decode_all(list(contents)).images, alone.images)
