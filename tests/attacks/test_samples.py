"""Samples one by one: fair shares of the groups, the right picture beside the right words."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from assay.attacks.examples import arrange, pick_samples, share_out
from assay.attacks.measure import measure_robust_accuracy
from assay.data.dataset import ImageDataset
from assay.errors import DataError
from assay.records.attack import SampleGallery


class MeanAgainst(nn.Module):
    """Dark or bright: class 1 when the mean pixel lies above one half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 20 * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-score, score], dim=1)


@pytest.fixture
def data() -> ImageDataset:
    """Forty grey pictures from black to white, two of them with the wrong label."""
    levels = torch.linspace(0, 255, 40).round().byte()
    labels = (levels > 127).long()
    labels[[3, 30]] = 1 - labels[[3, 30]]
    return ImageDataset(levels[:, None, None, None].expand(40, 3, 4, 6).clone(), labels, ("dark", "bright"), name="g")


def tiles_of(record: SampleGallery) -> list[np.ndarray]:
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(record.sheet))))
    height, width = record.tile
    places = [divmod(i, record.columns) for i in range(len(record.samples))]
    return [sheet[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places]


def test_every_sample_has_its_picture_and_its_answers(data: ImageDataset) -> None:
    measured = measure_robust_accuracy(MeanAgainst(), data, attack="pgd", epsilon=20 / 255)
    record = pick_samples(measured, data)
    assert SampleGallery.model_validate_json(record.model_dump_json()) == record
    assert [sample.sample_id for sample in record.samples] == [data.sample_name(i) for i in range(40)]
    for i, (sample, tile) in enumerate(zip(record.samples, tiles_of(record), strict=True)):
        assert np.array_equal(tile, data.images[i].permute(1, 2, 0).numpy())
        level = float(data.images[i, 0, 0, 0]) / 255
        label = int(data.labels[i])
        assert sample.label == label
        assert sample.before == int(level > 0.5)
        expected = "wrong" if sample.before != label else "broken" if abs(level - 0.5) <= 20 / 255 else "held"
        assert (sample.after == label) == (expected == "held")
        assert (sample.steps is None) == (expected != "broken")
    assert (record.wrong, record.broken, record.held) == (2, sum(s.steps is not None for s in record.samples), 32)


def test_rare_groups_keep_their_places(data: ImageDataset) -> None:
    measured = measure_robust_accuracy(MeanAgainst(), data, attack="pgd", epsilon=20 / 255)
    record = pick_samples(measured, data, shown=9)
    kinds = ["wrong" if s.before != s.label else "broken" if s.after != s.label else "held" for s in record.samples]
    assert (kinds.count("wrong"), kinds.count("broken"), kinds.count("held")) == (2, 3, 4)
    assert record.n == 40


@pytest.mark.parametrize(
    ("wanted", "places", "given"),
    [
        ([5, 200, 40], 100, [5, 55, 40]),
        ([0, 0, 7], 100, [0, 0, 7]),
        ([50, 50, 50], 10, [3, 3, 4]),
        ([0, 0, 0], 10, [0, 0, 0]),
    ],
)
def test_places_are_shared_out(wanted: list[int], places: int, given: list[int]) -> None:
    shared = share_out(wanted, places=places)
    assert shared == given
    assert sum(shared) == min(places, sum(wanted))


def test_the_sheet_keeps_within_its_bytes() -> None:
    noise = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageDataset(noise, torch.arange(60) % 2, ("a", "b"))
    measured = measure_robust_accuracy(MeanAgainst(), data, attack="noise", epsilon=1 / 255)
    record = pick_samples(measured, data, most_bytes=20_000)
    assert 5 < len(record.samples) < 60
    assert len(record.sheet) <= 20_000


def test_large_pictures_are_made_smaller() -> None:
    large = torch.full((3, 1, 128, 256), 200, dtype=torch.uint8)
    data = ImageDataset(large, torch.tensor([0, 1, 1]), ("a", "b"))
    record = pick_samples(measure_robust_accuracy(MeanAgainst(), data, attack="noise", epsilon=1 / 255), data)
    assert record.tile == (64, 128)  # twice as many as a page shows
    assert record.sheet.startswith("/9j/")  # a JPEG
    assert all(np.abs(tile.astype(int) - 200).max() <= 2 for tile in tiles_of(record))


def test_no_tile_shows_the_edge_of_its_neighbour() -> None:
    pixels = torch.tensor([0, 255, 0, 255, 0, 255], dtype=torch.uint8)
    images = pixels[:, None, None, None].expand(6, 1, 100, 150).contiguous()
    data = ImageDataset(images, torch.tensor([0, 1, 0, 1, 0, 1]), ("a", "b"))
    record = pick_samples(measure_robust_accuracy(MeanAgainst(), data, attack="noise", epsilon=1 / 255), data)
    assert record.tile == (88, 128)
    for place, tile in enumerate(tiles_of(record)):
        assert np.abs(tile.astype(int) - int(pixels[place])).max() <= 2


def test_arrange_puts_tiles_row_by_row() -> None:
    sheet = arrange(torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 1, 2), columns=2)
    assert sheet.tolist() == [[[0, 0, 1, 1], [2, 2, 0, 0]]]


def test_another_data_set_is_refused(data: ImageDataset) -> None:
    measured = measure_robust_accuracy(MeanAgainst(), data, attack="noise", epsilon=1 / 255)
    with pytest.raises(DataError, match="40 samples that were attacked"):
        pick_samples(measured, data.subset(torch.arange(3)))
