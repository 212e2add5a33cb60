"""Many pictures lie in a file, few in memory; nobody who reads them can tell."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.data import storage as store_module
from assay.data.dataset import ImageDataset
from assay.data.pictures import PictureStore
from assay.errors import DataError

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3)
COLOUR = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


def fill(*pictures: np.ndarray, count: int | None = None) -> PictureStore:
    store = PictureStore(count=count or len(pictures), where="set")
    for pixels in pictures:
        store.append(pixels)
    return store


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(store_module, "memory_bytes", lambda: 8 if request.param == "file" else 2**30)
    return str(request.param)


def test_pictures_come_back_in_order_and_one_colour_makes_three_channels(place: str) -> None:
    store = fill(GREY, GREY + 1, COLOUR, GREY + 2)
    assert isinstance(store._pixels, np.memmap) == (place == "file")
    images = store.images()
    assert images.shape == (4, 3, 2, 3)
    assert torch.equal(images[2], torch.from_numpy(COLOUR).permute(2, 0, 1))
    for row, more in ((0, 0), (1, 1), (3, 2)):
        assert torch.equal(images[row], torch.from_numpy(GREY + more).expand(3, 2, 3))


def test_grey_pictures_keep_one_channel_and_missing_ones_no_place(place: str) -> None:
    images = fill(GREY, GREY + 1, count=5).images()
    assert images.shape == (2, 1, 2, 3)
    assert torch.equal(images[1, 0], torch.from_numpy(GREY + 1))


def test_the_file_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(store_module, "memory_bytes", lambda: 8)
    monkeypatch.setattr(store_module.tempfile, "tempdir", str(tmp_path))
    store = fill(COLOUR)
    assert isinstance(store._pixels, np.memmap)
    assert not list(tmp_path.iterdir())


def test_too_many_for_memory_and_disk_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "memory_bytes", lambda: 8)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"set: expected images that fit in .*TMPDIR.*--limit.*got 9 of 3x2 pixels"):
        fill(COLOUR, count=9)


def test_processes_of_one_machine_divide_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "memory_bytes", lambda: 4 * 2 * COLOUR.size)
    assert not isinstance(fill(COLOUR, COLOUR)._pixels, np.memmap)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert isinstance(fill(COLOUR, COLOUR)._pixels, np.memmap)


def test_a_part_of_a_large_set_goes_to_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (2_500, 3, 2, 2), dtype=torch.uint8)
    data = ImageDataset(images, torch.arange(2_500) % 2, ("a", "b"))
    rows = torch.randperm(2_500)[:2_200]
    mapped: list[tuple[int, ...]] = []
    original = store_module.map_file

    def count(*args: Any, **options: Any) -> Any:
        mapped.append(args[1])
        return original(*args, **options)

    monkeypatch.setattr(store_module, "map_file", count)
    assert torch.equal(data.subset(rows).images, images[rows])
    assert not mapped
    monkeypatch.setattr(store_module, "memory_bytes", lambda: 8)
    assert torch.equal(data.subset(rows).images, images[rows])
    assert mapped == [(2_200, 3, 2, 2)]
    assert torch.equal(data.run(3, 9).images, images[3:9])
    assert len(mapped) == 1, "neighbours stay where they are"
