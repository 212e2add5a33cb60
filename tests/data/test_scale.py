"""What black and white are in stored pixels: right, or told, or refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assay.data.arrays import to_image_bytes
from assay.data.pictures import Encoded, decode, decode_pictures
from assay.data.reading import Reading
from assay.data.scale import judge_scale
from assay.data.sources import load_dataset
from assay.errors import DataError


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "low", "high", "whole", "factor", "told"),
    [
        ("u1", 0, 255, True, 1, None),
        ("u1", 0, 1, True, 1, "nearly black"),
        ("u1", 0, 15, True, 1, "nearly black"),
        ("u1", 0, 32, True, 1, None),
        ("?", 0, 1, True, 255, None),
        ("u2", 0, 65535, True, 255 / 65535, None),
        ("u2", 0, 16384, True, 255 / 65535, None),
        ("u2", 0, 16383, True, 255 / 16383, "14 bits"),
        ("u2", 0, 4095, True, 255 / 4095, "no pixel of 16 bits is above 4095: taken as values of 12 bits"),
        ("u2", 0, 1000, True, 255 / 1023, "10 bits"),
        (">u2", 0, 65535, True, 255 / 65535, None),
        (">u2", 0, 4095, True, 255 / 4095, "12 bits"),
        (">u2", 0, 200, True, 1, "8 bits"),
        ("u2", 0, 255, True, 1, "8 bits"),
        ("u2", 0, 1, True, 255, "black and white"),
        ("i8", 0, 255, True, 1, None),
        ("i8", 0, 1, True, 255, "black and white"),
        ("i8", 0, 15, True, 1, "nearly black"),
        ("f8", 0, 1, True, 255, None),
        ("f4", 0, 0.5, False, 255, None),
        ("f4", 0, 0.004, False, 255, "nearly black"),
        ("f4", 0, 255, True, 1, None),
        ("f4", 0, 16, True, 1, "nearly black"),
    ],
)
def test_type_and_values_together_tell_the_scale(
    kind: str, low: float, high: float, whole: bool, factor: float, told: str | None
) -> None:
    scale = judge_scale(np.dtype(kind), low=low, high=high, whole=whole, where="x")
    assert scale.factor == pytest.approx(factor)
    assert (scale.note is None) if told is None else (told in str(scale.note))


@pytest.mark.parametrize(
    ("kind", "low", "high", "whole"),
    [
        ("f4", -1, 1, False),
        ("i2", -1024, 3000, True),
        ("i8", 0, 4095, True),
        ("f4", 0, 254.5, False),
        ("f4", 0, 1e6, 1),
    ],
)
def test_a_scale_that_cannot_be_known_is_refused(kind: str, low: float, high: float, whole: bool) -> None:
    with pytest.raises(DataError, match=r"^x: expected pixels 0\.\.255, or floating in \[0, 1\], got "):
        judge_scale(np.dtype(kind), low=low, high=high, whole=whole, where="x")


@given(st.lists(st.integers(0, 65535), min_size=4, max_size=4), st.sampled_from([1, 16, 64, 256]))
def test_greys_of_16_bits_keep_their_ratios_over_the_whole_set(values: list[int], darker: int) -> None:
    stored = (np.array(values, np.uint16) // darker).reshape(2, 1, 2)
    found = to_image_bytes(stored, where="x").numpy().ravel().astype(float)
    top = int(stored.max())
    white = 1 if top <= 1 else next((1 << bits) - 1 for bits in (8, 10, 12, 14, 16) if top < 1 << bits)
    assert np.abs(found - 255.0 / white * stored.ravel()).max() <= 0.5
    samples = [Encoded(str(place), png(picture)) for place, picture in enumerate(stored)]
    decoded = decode_pictures(samples, count=2, reading=Reading(), where="set")
    assert decoded.images.flatten().tolist() == found.tolist()


def test_pictures_of_12_bits_are_as_bright_as_they_should_be_and_it_is_told(tmp_path: Path) -> None:
    greys = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    for name, picture in (("a/bright.png", greys), ("b/dark.png", greys // 8)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(png(picture))
    dataset = load_dataset(str(tmp_path))
    assert dataset.images[0].max() == 255
    assert dataset.images[1].max() == 32  # 511 of 4095: the dark picture is judged with the bright one
    assert [note for note in dataset.notes if "no pixel of 16 bits is above 4095: taken as values of 12 bits" in note]
    assert load_dataset(str(tmp_path), image_size=4).images[0].max() > 200


def test_bytes_beside_greys_of_16_bits_stay_as_they_are() -> None:
    deep, plain = np.array([[0, 4095]], np.uint16), np.array([[7, 200]], np.uint8)
    colour = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    samples = [Encoded(str(place), png(picture)) for place, picture in enumerate((plain, deep, colour))]
    images = decode_pictures(samples, count=3, reading=Reading(), where="set").images
    assert images[0, 0].tolist() == plain.tolist()
    assert images[1, 2].tolist() == [[0, 255]]
    assert images[2].permute(1, 2, 0).tolist() == colour.tolist()


def test_masks_of_0_and_1_are_told(tmp_path: Path) -> None:
    masks = np.arange(32, dtype=np.uint8).reshape(2, 4, 4) % 2
    for name, mask in zip("ab", masks, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(mask))
    assert any("the brightest pixel is 1 where 255 is white" in note for note in load_dataset(str(tmp_path)).notes)
    np.savez(tmp_path / "masks.npz", images=masks.astype(np.int64), labels=np.arange(2))
    wide = load_dataset(str(tmp_path / "masks.npz"))
    assert wide.images.unique().tolist() == [0, 255]
    assert any("taken as black and white" in note for note in wide.notes)


def test_the_scale_of_idx_numbers_is_judged_by_all_rows_whatever_the_limit(
    tmp_path: Path, write_idx: Callable[..., Path]
) -> None:
    images = np.zeros((4, 5, 5), np.float32)
    images[0], images[3] = 1, 200  # whole numbers up to 200, so that 1 is nearly black
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0, 1, 0, 1], np.uint8))
    assert load_dataset(str(tmp_path), limit=1).images.max() == 1


def test_a_picture_alone_is_judged_by_itself() -> None:
    assert decode(png(np.array([[0, 4095]], np.uint16))).tolist() == [[0, 255]]
