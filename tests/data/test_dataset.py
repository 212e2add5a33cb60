from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import evenly_spaced, fair_sample, stratified_split
from assay.errors import DataError
from assay.records.preparation import Preparation


def make(n: int = 6, k: int = 3, **changes: object) -> ImageDataset:
    values = {
        "images": torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 3, 4, 5).contiguous(),
        "labels": torch.arange(n) % k,
        "classes": tuple("abc"[:k]),
    }
    return ImageDataset(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(6, 3, 4, 5)}, r"images: expected uint8 \(N, C, H, W\), got torch.float32"),
        ({"images": torch.zeros(6, 3, 4).byte()}, r"images: expected four dimensions"),
        ({"images": torch.zeros(6, 32, 32, 3).byte()}, r"1 to 4 channels in \(N, C, H, W\); is it \(N, H, W, C\)\?"),
        (
            {"images": torch.zeros(0, 3, 4, 4).byte(), "labels": torch.zeros(0).long()},
            "at least one image, got an empty",
        ),
        ({"images": torch.zeros(6, 3, 0, 4).byte()}, "at least one pixel"),
        ({"labels": torch.zeros(6)}, r"labels: expected int64 \(6,\), one for each image, got torch.float32 \(6,\)"),
        ({"labels": torch.zeros(5).long()}, r"got torch.int64 \(5,\)"),
        ({"labels": torch.tensor([0, 1, 2, 12, 0, 0])}, r"labels\[3\]: expected 0..2, got 12"),
        ({"labels": torch.tensor([0, 1, -1, 2, 0, 0])}, r"labels\[2\]: expected 0..2, got -1"),
        ({"classes": ("only",)}, r"classes: expected at least two, got \['only'\]"),
        ({"ids": torch.arange(5)}, r"ids: expected int64 \(6,\)"),
        ({"ids": torch.tensor([0, 1, 2, 3, 4, 4])}, "ids: expected distinct numbers, got repeated ones"),
        ({"filenames": ("a", "b")}, "filenames: expected 6 names, got 2"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_names_what_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_subset_keeps_ids_and_file_names() -> None:
    dataset = make(filenames=tuple("uvwxyz"))
    by_index, by_mask = dataset.subset(torch.tensor([4, 1])), dataset.subset(dataset.labels == 1)
    assert by_index.ids.tolist() == [4, 1]
    assert by_index.filenames == ("y", "v")
    assert by_index.images[:, 0, 0, 0].tolist() == [4, 1]
    assert by_mask.ids.tolist() == [1, 4]
    assert by_index.subset(torch.tensor([1])).ids.tolist() == [1]


def test_what_was_left_out_or_guessed_is_told_of_every_part() -> None:
    dataset = make(skipped=("a.png: empty",), notes=("2 files are no pictures",))
    parts = (dataset.subset(torch.tensor([1])), fair_sample(dataset, 3), evenly_spaced(dataset, 2))
    halves = stratified_split(dataset, fraction=0.5, seed=0)
    for part in (*parts, *halves, dataset.arranged(torch.tensor([3, 1]))):
        assert (part.skipped, part.notes) == (dataset.skipped, dataset.notes)


def test_arranged_follows_the_ids_and_passes_over_missing_ones() -> None:
    dataset = make().subset(torch.tensor([0, 2, 4]))
    assert dataset.arranged(torch.tensor([4, 3, 0])).ids.tolist() == [4, 0]


def test_batches_cover_the_set_in_order() -> None:
    batches = list(make().batches(4))
    assert [len(batch.images) for batch in batches] == [4, 2]
    assert torch.cat([batch.ids for batch in batches]).tolist() == list(range(6))


def test_sample_name_is_the_file_or_the_split_and_id() -> None:
    assert make(split="test").subset(torch.tensor([3])).sample_name(0) == "test/3"
    assert make(filenames=tuple("uvwxyz")).sample_name(5) == "z"


def test_unit_range_is_exact_at_both_ends() -> None:
    assert to_unit_range(torch.tensor([0, 51, 255]).byte()).tolist() == pytest.approx([0, 0.2, 1])


def test_samples_are_renumbered_among_other_classes_however_they_are_read() -> None:
    images = torch.randint(0, 256, (6, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = ImageDataset(images, torch.arange(6) % 2, ("b", "d"))
    again = replace(data, read_again=lambda _, ids: data.subset(ids))
    renumbered = again.renumbered((1, 3), classes=("a", "b", "c", "d"))
    assert renumbered.labels.tolist() == [1, 3, 1, 3, 1, 3]
    assert renumbered.read_again is not None
    read = renumbered.read_again(Preparation(), torch.tensor([3, 0]))
    assert (read.labels.tolist(), read.classes) == ([3, 1], ("a", "b", "c", "d"))
    with pytest.raises(DataError, match="numbers: expected one for each of 2 classes, got 3"):
        data.renumbered((0, 1, 2), classes=("a", "b", "c"))


def test_labels_that_count_from_one_are_told_as_such() -> None:
    with pytest.raises(DataError, match=r"labels\[1\]: expected 0..1, got 2 \(the labels count from 1: subtract 1\)"):
        ImageDataset(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([1, 2]), ("a", "b"))
