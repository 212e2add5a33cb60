from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.data.dataset import ImageDataset
from assay.data.selection import stratified_split
from assay.errors import DataError, OptionError


def make(labels: list[int], split: str = "train") -> ImageDataset:
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    ids = torch.arange(len(labels)) * 3 + 5
    return ImageDataset(images, torch.tensor(labels), tuple("abcd"), name="made", split=split, ids=ids)


@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.floats(0.15, 0.85), st.integers(0, 9))
def test_parts_are_disjoint_complete_and_hold_each_class_in_proportion(
    labels: list[int], fraction: float, seed: int
) -> None:
    dataset = make(labels)
    kept, held_out = stratified_split(dataset, fraction=fraction, seed=seed)
    assert sorted(kept.ids.tolist() + held_out.ids.tolist()) == dataset.ids.tolist()
    assert len(held_out) == round(fraction * len(labels))
    sizes = torch.bincount(dataset.labels, minlength=4)
    share = len(held_out) / len(labels)
    assert (torch.bincount(held_out.labels, minlength=4) - share * sizes).abs().max() < 1
    for part in (kept, held_out):
        assert part.ids.tolist() == sorted(part.ids.tolist())
        assert all(dataset.labels[(i - 5) // 3] == label for i, label in zip(part.ids, part.labels, strict=True))


def test_the_seed_decides_and_the_order_of_the_samples_does_not() -> None:
    dataset = make([0, 1, 2, 3] * 20)
    drawn = stratified_split(dataset, fraction=0.3, seed=1)[1].ids.tolist()
    assert stratified_split(dataset, fraction=0.3, seed=1)[1].ids.tolist() == drawn
    assert stratified_split(dataset, fraction=0.3, seed=2)[1].ids.tolist() != drawn
    shuffled = dataset.subset(torch.randperm(80, generator=torch.Generator().manual_seed(0)))
    assert sorted(stratified_split(shuffled, fraction=0.3, seed=1)[1].ids.tolist()) == drawn


def test_what_is_held_out_of_train_is_called_validation() -> None:
    kept, held_out = stratified_split(make([0, 1] * 5), fraction=0.2, seed=0)
    assert (kept.split, held_out.split) == ("train", "validation")
    assert stratified_split(make([0, 1] * 5, split="all"), fraction=0.2, seed=0)[1].split == "all"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_fraction_outside_of_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(OptionError, match="fraction: expected a number between 0 and 1"):
        stratified_split(make([0, 1] * 5), fraction=fraction, seed=0)


def test_a_part_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match="made: expected enough samples to hold out 0.01 of them, got 10 samples"):
        stratified_split(make([0, 1] * 5), fraction=0.01, seed=0)
