"""Planted duplicates are found with what relates them; independent pictures, and those that show nothing, are not."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import assay
from assay.data.dataset import ImageDataset
from assay.quality.candidates import _nearest
from assay.quality.registration import compare, refine, register
from assay.records.quality import Duplicates
from threads_as_processes import run_in_threads

Make = Callable[..., Tensor]
AsSet = Callable[..., ImageDataset]
N = 40  # pictures in which those that are looked up are found


def cut(images: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A window of each picture, enlarged to the whole again."""
    window = images[:, :, top : top + height, left : left + width].float()
    return F.interpolate(window, images.shape[2:], mode="bilinear", antialias=True).round().clamp(0, 255).byte()


def recompress(images: Tensor) -> Tensor:
    again = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=30)
        again.append(torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1))
    return torch.stack(again)


def recolour(images: Tensor) -> Tensor:
    factors = torch.tensor([0.9, 0.7, 0.5])[:, None, None]
    return (images.float() * factors + 40).round().clamp(0, 255).byte()


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "moved": lambda x: cut(x, 8, 0, 56, 56),
    "scaled": lambda x: cut(x, 8, 8, 48, 48),
    "squeezed": lambda x: cut(x, 0, 6, 64, 52),
    "mirrored": lambda x: x.flip(3),
    "darker": lambda x: (x.float() * 0.5).byte(),
    "compressed": recompress,
    "recoloured": recolour,
    "grey": lambda x: (x.float() * torch.tensor([0.3, 0.59, 0.11])[:, None, None]).sum(dim=1, keepdim=True).byte(),
    "smaller": lambda x: F.interpolate(x.float(), (40, 40), mode="bilinear", antialias=True).round().byte(),
}
PAIRED = [(a, b) for a in CHANGES for b in ("mirrored", "darker", "scaled") if a not in {b, "grey"}]


@pytest.mark.parametrize("names", [*((name,) for name in CHANGES), *PAIRED], ids="+".join)
def test_a_planted_duplicate_is_found(photographs: Make, pictured: AsSet, names: tuple[str, ...]) -> None:
    train = photographs(N)
    changed = train[:10]
    for name in names:
        changed = CHANGES[name](changed)
    found_in = assay.find_duplicates(pictured(changed), pictured(train, name="train"))
    pairs = {pair.first: pair for pair in found_in.pairs if pair.match == "near"}
    assert sorted(pairs) == list(range(10))
    assert all(pair.second == place for place, pair in pairs.items())
    assert all(pair.relation.mirrored == ("mirrored" in names) for pair in pairs.values())
    assert found_in.related == tuple(range(10))
    assert min(found_in.scores) >= found_in.threshold - 1e-4


def test_the_relation_is_that_of_the_change(photographs: Make, pictured: AsSet) -> None:
    train = photographs(N)
    window = (cut(train[:10], 8, 0, 48, 48).float() * 0.5).byte()
    for pair in assay.find_duplicates(pictured(window), pictured(train)).pairs:
        # a pixel at u of the window lies at 8 + 0.75 u of the whole: 4 of 64 above its middle, 8 to the left
        relation = pair.relation
        assert relation.scale_down == pytest.approx(0.75, abs=0.02)
        assert relation.scale_across == pytest.approx(0.75, abs=0.02)
        assert (relation.shift_down, relation.shift_across) == pytest.approx((0.0, -0.125), abs=0.01)
        assert relation.contrast > 1.6  # the window is blurred by being enlarged


def test_independent_pictures_are_no_duplicates(photographs: Make, pictured: AsSet) -> None:
    within = assay.find_duplicates(pictured(photographs(300, size=32)))
    between = assay.find_duplicates(pictured(photographs(100, seed=1)), pictured(photographs(300, size=32)))
    assert (within.exact, within.near, within.similar, between.exact, between.near, between.similar) == (0,) * 6


def test_two_skies_are_no_duplicates(pictured: AsSet) -> None:
    """Gradients of the same blue, with noise: they correlate by what all skies have in common, at one place."""
    generator = torch.Generator().manual_seed(0)
    height = torch.linspace(0, 1, 64)[:, None].expand(64, 64)
    slopes = torch.rand(30, 1, 1, 1, generator=generator) * 60 + 20
    blue = torch.tensor([90.0, 140.0, 210.0])[:, None, None]
    skies = blue + slopes * (height - 0.5) + 3 * torch.randn(30, 3, 64, 64, generator=generator)
    found_in = assay.find_duplicates(pictured(skies.clamp(0, 255).byte()))
    assert (found_in.exact, found_in.near) == (0, 0)


def test_equal_pictures_are_each_paired_with_the_first(photographs: Make, pictured: AsSet) -> None:
    images = photographs(3, size=32)[[0, 1, 0, 2, 0]]
    record = assay.find_duplicates(pictured(images, labels=torch.tensor([0, 0, 1, 0, 0])))
    assert [(pair.first, pair.second, pair.match) for pair in record.pairs] == [(0, 2, "exact"), (0, 4, "exact")]
    assert (record.exact, record.near, record.contradictory, record.related) == (3, 0, 1, (0, 2, 4))


@pytest.mark.parametrize("n", [1, 2, 300])
def test_a_set_of_one_black_picture(pictured: AsSet, n: int) -> None:
    record = assay.find_duplicates(pictured(torch.zeros(n, 1, 5, 7, dtype=torch.uint8)))
    assert (record.exact, record.near, len(record.pairs), record.plain) == (n * (n > 1), 0, n - 1, n)


def test_one_picture_against_one(photographs: Make, pictured: AsSet) -> None:
    one = photographs(1)
    assert assay.find_duplicates(pictured(one), pictured(recompress(one))).near == 1
    assert assay.find_duplicates(pictured(one), pictured(photographs(1, seed=3))).near == 0


def test_where_all_pictures_look_alike_only_what_stands_out_is_one() -> None:
    train, test = assay.load_dataset("digits", split="train"), assay.load_dataset("digits", limit=100)
    plain = assay.find_duplicates(test, train)
    assert (plain.exact, plain.near) == (0, 0)
    assert plain.threshold > 0.97
    images = torch.cat([train.images[:60], (train.images[60:63].float() * 0.7).byte()])
    planted = ImageDataset(images, train.labels[:63], classes=train.classes)
    record = assay.find_duplicates(planted, train)
    assert (record.exact, record.near) == (60, 3)


def matches(record: Duplicates) -> list[tuple[int, int, str]]:
    return [(pair.first, pair.second, pair.match) for pair in record.pairs]


def test_several_processes_find_the_same(photographs: Make, pictured: AsSet) -> None:
    train = pictured(photographs(30))
    test = pictured(recompress(photographs(30)[:9]))
    alone = assay.find_duplicates(test, train)
    together = run_in_threads(2, lambda processes: assay.find_duplicates(test, train, processes=processes))
    for record in together:
        assert matches(record) == matches(alone)
        assert record.threshold == pytest.approx(alone.threshold)


def test_neighbours_are_exact() -> None:
    table = torch.randn(7, 5003, generator=torch.Generator().manual_seed(0))
    nearest, naive = _nearest(table, 5), table.topk(5, dim=1)
    assert torch.equal(nearest.values, naive.values)
    assert torch.equal(nearest.indices, naive.indices)


def test_registration_finds_a_known_shift_and_scale(photographs: Make) -> None:
    second = photographs(8, size=32).float().mean(dim=1)
    theta = torch.tensor([[0.9, 0.0, 0.1], [0.0, 0.8, -0.05]]).expand(8, 2, 3)
    grid = F.affine_grid(theta, [8, 1, 32, 32], align_corners=False)
    first = F.grid_sample(second[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    alignment, _ = register(first, second)
    alignment = refine(first, second, alignment)
    assert torch.allclose(alignment.scale, torch.tensor([0.8, 0.9]).expand(8, 2), atol=0.02)
    assert torch.allclose(alignment.shift, torch.tensor([-0.8, 1.6]).expand(8, 2), atol=0.15)
    assert float(compare(first, second, alignment).score.min()) > 0.97


@pytest.mark.shared
def test_recall_on_the_published_duplicates_of_cifar(shared) -> None:
    """Of test pictures that people judged to be near duplicates, with 4,000 other training pictures between."""
    with (shared / "data" / "cifar10" / "truth" / "duplicates-train.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["judgment"] in {"0", "1"}]
    folder = shared / "data" / "cifar10"
    test = assay.load_dataset("cifar10", data_dir=shared / "data")
    train = assay.load_dataset(str(folder / "train-*.parquet"), split="train")
    assert test.filenames is not None
    assert train.filenames is not None
    wanted, partners = ({row[key] for row in rows} for key in ("test_image", "train_image"))
    looked_up = test.subset(torch.tensor([name in wanted for name in test.filenames]))
    chosen = torch.tensor([name in partners for name in train.filenames])
    chosen[::12] = True
    record = assay.find_duplicates(looked_up, train.subset(chosen))
    assert len(record.related) >= 0.9 * len(looked_up)
