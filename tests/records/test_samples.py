"""Which samples, and which of them were right: compact, and back again without loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.data.dataset import ImageDataset, identify_samples, keep_levels, keep_right
from assay.records.samples import SampleBits, SampleLevels, SampleSet, read_runs, write_runs


def numbered(n: int) -> SampleSet:
    return SampleSet(n=n, ids=write_runs(range(n)), labels="l", pixels="p")


@given(st.sets(st.integers(-(2**63), 2**63 - 1), max_size=60))
def test_runs_of_ids_come_back(ids: set[int]) -> None:
    ordered = sorted(ids)
    assert [i for run in read_runs(write_runs(ordered)) for i in run] == ordered


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (range(1000), "0..999"),
        (range(0, 10_000, 10), "0..9990/10"),
        ([3, 7, 12, 13, 14], "3,7,12..14"),
        ([5], "5"),
        ([], ""),
    ],
)
def test_runs_are_short(ids: object, text: str) -> None:
    assert write_runs(list(ids)) == text


@pytest.mark.parametrize("text", ["a", "1..", "5..3", "1..9/0", "4,2", "1,1", "1...3", "1..3/2/2", "٣"])
def test_other_text_is_no_run(text: str) -> None:
    with pytest.raises(ValueError, match="runs of ids"):
        list(read_runs(text))


@given(st.lists(st.booleans(), max_size=70))
def test_bits_come_back(right: list[bool]) -> None:
    kept = SampleBits.of(numbered(len(right)), right)
    assert SampleBits.model_validate_json(kept.model_dump_json()).unpack() == right


@given(st.lists(st.integers(0, 255), max_size=40))
def test_levels_come_back(levels: list[int]) -> None:
    kept = SampleLevels.of(numbered(len(levels)), levels)
    assert SampleLevels.model_validate_json(kept.model_dump_json()).unpack() == levels


def test_ten_thousand_samples_take_two_kilobytes() -> None:
    assert len(SampleBits.of(numbered(10_000), [True, False] * 5_000).model_dump_json()) < 2_000


@pytest.mark.parametrize("bits", ["", "AA==", "AAAA!", "AAAAAA=="])
def test_damaged_bits_are_refused(bits: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        SampleBits(samples=numbered(20), bits=bits)


@pytest.fixture
def data() -> ImageDataset:
    images = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8)
    return ImageDataset(images, torch.arange(30) % 3, ("a", "b", "c"))


def test_a_set_is_the_same_in_any_order_and_another_with_one_pixel_changed(data: ImageDataset) -> None:
    shuffled = data.subset(torch.randperm(30))
    assert identify_samples(shuffled) == identify_samples(data)
    right = torch.rand(30) < 0.5
    assert keep_right(data, right).unpack() == right.tolist()
    assert keep_right(shuffled, right[shuffled.ids]) == keep_right(data, right)
    assert keep_levels(shuffled, shuffled.ids).unpack() == list(range(30))
    other = data.images.clone()
    other[7, 0, 0, 0] ^= 1
    changed = identify_samples(ImageDataset(other, data.labels, data.classes))
    assert changed.labels == identify_samples(data).labels
    assert changed.pixels != identify_samples(data).pixels
    relabelled = identify_samples(ImageDataset(data.images, (data.labels + 1) % 3, data.classes))
    assert relabelled.labels != identify_samples(data).labels
    assert relabelled.pixels == identify_samples(data).pixels
