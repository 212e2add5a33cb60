"""What a source tells of each sample beside image and label stays with the sample."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from assay.data.dataset import ImageDataset
from assay.data.metadata import make_column
from assay.data.selection import evenly_spaced, fair_sample, random_sample, stratified_split
from assay.data.sources import load_dataset
from assay.errors import DataError, UnusedOptionError


def make(n: int = 12) -> ImageDataset:
    """Every column repeats the id, so that a column that lost its samples shows."""
    texts = np.array([None if i == 3 else f"site {i}" for i in range(n)], object)
    metadata = {"site": texts, "number": np.arange(n), "half": np.arange(n) / 2, "even": np.arange(n) % 2 == 0}
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()
    return ImageDataset(images, torch.arange(n) % 2, ("a", "b"), metadata=metadata)


def assert_together(part: ImageDataset) -> None:
    ids = part.ids.numpy()
    assert part.metadata["number"].tolist() == ids.tolist()
    assert part.metadata["half"].tolist() == (ids / 2).tolist()
    assert part.metadata["even"].tolist() == (ids % 2 == 0).tolist()
    assert part.metadata["site"].tolist() == [None if i == 3 else f"site {i}" for i in ids]


def test_every_part_of_a_set_keeps_what_belongs_to_its_samples() -> None:
    dataset = make()
    sorted_by_class = dataset.arranged(torch.tensor([0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]))
    parts = [
        dataset.subset(torch.tensor([3, 0, 7])),
        dataset.subset(dataset.labels == 1),
        dataset.arranged(torch.tensor([5, 3, 99])),
        dataset.renumbered((1, 0), classes=("b", "a")),
        replace(dataset, split="test"),
        fair_sample(sorted_by_class, 4),
        random_sample(dataset, 5, key=(0, 1)),
        evenly_spaced(dataset, 3),
        *stratified_split(dataset, fraction=0.5, seed=0),
    ]
    for part in parts:
        assert_together(part)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.arange(3), r"metadata\['m'\]: expected one value for each of 12 samples, got shape \(3,\)"),
        (np.zeros((12, 2)), r"one value for each of 12 samples, got shape \(12, 2\)"),
        (np.zeros(12, np.float32), "expected int64, float64, bool, or objects that are text, got float32"),
        (np.array(["a"] * 12), "or objects that are text, got <U1"),
        (np.array([1] * 12, object), "text or None in an array of objects, got 1"),
        ([1] * 12, r"metadata\['m'\]: expected a NumPy array"),
    ],
)
def test_a_column_is_one_scalar_a_sample(column: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(make(), metadata={"m": column})


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2, 3], "i", [1, 2, 3]),
        ([True, False], "b", [True, False]),
        ([True, None], "O", ["true", None]),
        ([1, 2.5], "f", [1, 2.5]),
        (["a", None], "O", ["a", None]),
        ([None, None], "O", [None, None]),
        ([1, "a"], "O", ["1", "a"]),
        ([1 << 63, 1], "O", [str(1 << 63), "1"]),
        ([(1 << 62) + 1, None], "O", [str((1 << 62) + 1), None]),  # not in float64
        ([datetime.date(2024, 5, 1)], "O", ["2024-05-01"]),
    ],
)
def test_values_become_a_column(values: list[object], kind: str, expected: list[object]) -> None:
    column = make_column(values)
    assert column is not None
    assert (column.dtype.kind, column.tolist()) == (kind, expected)
    replace(make(len(values)), metadata={"m": column})


def test_missing_numbers_are_not_numbers() -> None:
    column = make_column([1, None, 3])
    assert column is not None
    assert np.array_equal(column, [1, np.nan, 3], equal_nan=True)


@pytest.mark.parametrize("values", [[[1, 2]], [b"x"], [{"a": 1}, None]])
def test_what_is_no_scalar_makes_no_column(values: list[object]) -> None:
    assert make_column(values) is None


@pytest.mark.parametrize("name", ["image_column", "label_column", "split_column", "root"])
def test_an_option_of_tables_is_refused_where_it_has_no_effect(name: str) -> None:
    with pytest.raises(UnusedOptionError, match=f"--{name.replace('_', '-')}: no effect on digits"):
        load_dataset("digits", **{name: "x"})  # type: ignore[arg-type]
