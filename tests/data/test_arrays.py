from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from assay.data.arrays import channels_first, resize_all, to_image_bytes
from assay.errors import DataError

bytes_of = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(5, 9), st.integers(5, 9))
)


@given(bytes_of)
def test_every_layout_of_the_same_images_gives_the_same_bytes(images: np.ndarray) -> None:
    assert torch.equal(to_image_bytes(images, where="x"), torch.from_numpy(images))
    assert torch.equal(to_image_bytes(images.transpose(0, 2, 3, 1), where="x"), torch.from_numpy(images))
    if images.shape[1] == 1:
        assert torch.equal(to_image_bytes(images[:, 0], where="x"), torch.from_numpy(images))


@given(bytes_of, st.sampled_from([np.float16, np.float32, np.float64]))
def test_bytes_survive_a_trip_through_floating_unit_range(images: np.ndarray, dtype: type) -> None:
    unit = (images / 255).astype(dtype)
    assert torch.equal(to_image_bytes(unit, where="x"), torch.from_numpy(images))


@given(bytes_of.filter(lambda images: images.max() > 1), st.sampled_from([np.int16, np.int64, np.float32, np.uint16]))
def test_bytes_stored_in_wider_numbers_stay_bytes(images: np.ndarray, dtype: type) -> None:
    assert torch.equal(to_image_bytes(images.astype(dtype), where="x"), torch.from_numpy(images))


def test_sixteen_bits_are_scaled_and_truth_values_are_black_and_white() -> None:
    deep = np.array([0, 257, 65535, 300], np.uint16).reshape(1, 2, 2)
    assert to_image_bytes(deep, where="x").flatten().tolist() == [0, 1, 255, 1]
    assert to_image_bytes(np.array([[[True, False]]]), where="x").flatten().tolist() == [255, 0]


def test_square_rows_are_grey_images() -> None:
    rows = np.arange(2 * 36, dtype=np.uint8).reshape(2, 36)
    assert to_image_bytes(rows, where="x").shape == (2, 1, 6, 6)


def test_chosen_images_are_scaled_as_the_whole_set_is() -> None:
    images = np.zeros((3, 5, 5), np.float32)
    images[2] = 200  # so these are bytes in floating numbers, and 1.0 is nearly black
    images[1] = 1
    assert to_image_bytes(images, where="x", chosen=np.array([1])).unique().tolist() == [1]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((2, 3, 7, 3), np.uint8),
            "x: expected a shape that tells channels from pixels, got .* could be either",
        ),
        (np.zeros((2, 7, 7, 9), np.uint8), r"with 1 to 4 channels, got shape \(2, 7, 7, 9\)"),
        (np.zeros((2, 37), np.uint8), "square number of grey pixels"),
        (np.zeros(7, np.uint8), r"got shape \(7,\)"),
        (np.zeros((2, 0, 6), np.uint8), r"pictures of at least one pixel, got shape \(2, 0, 6\)"),
        (np.full((2, 5, 5), -1.5), "expected pixels 0..255, or floating in .*, got -1.5..-1.5; normalised"),
        (np.full((2, 5, 5), 1.5), "got 1.5..1.5"),
        (np.full((2, 5, 5), 256), "got 256..256"),
        (np.full((2, 5, 5), "a"), "x: expected numbers, got values of type <U1"),
        (np.full((2, 5, 5), 1j), "got values of type complex128"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else str(value.shape),
)
def test_says_what_it_cannot_tell(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_image_bytes(array, where="x")


def test_names_the_first_image_that_is_not_finite() -> None:
    images = np.zeros((5, 6, 6), np.float32)
    images[3, 2, 2] = np.nan
    with pytest.raises(DataError, match=r"x\[3\]: expected finite pixels, got NaN"):
        to_image_bytes(images, where="x")


def test_channels_first_is_a_view() -> None:
    images = np.zeros((2, 6, 7, 3), np.uint8)
    assert np.shares_memory(channels_first(images, where="x"), images)


def test_resizing_takes_the_centre_square() -> None:
    images = torch.zeros(1, 2, 4, 8, dtype=torch.uint8)
    images[..., 2:6] = 200
    small = resize_all(images, 4)
    assert small.shape == (1, 2, 4, 4)
    assert small.unique().tolist() == [200]
    assert resize_all(images[..., :4], 2).shape == (1, 2, 2, 2)
    assert resize_all(images, None) is images
