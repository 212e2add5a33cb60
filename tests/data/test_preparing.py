"""Pictures are prepared bit for bit as torchvision's and timm's own transforms prepare them."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision import models
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from torchvision.transforms.functional import pil_to_tensor

from assay.data.dataset import to_unit_range
from assay.data.preparing import prepare_picture
from assay.data.sources import load_dataset
from assay.errors import DataError, OptionError
from assay.models.sources import timm as timm_source
from assay.models.sources import torchvision as torchvision_source
from assay.models.wrappers import Normalization, Normalize
from assay.records.preparation import Preparation

SIZES = [(1, 1), (1, 9), (7, 5), (9, 31), (32, 32), (33, 32), (47, 64), (64, 37), (101, 53), (40, 121), (97, 98)]


def picture(height: int, width: int, *, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def same(prepared: Image.Image, expected: object) -> bool:
    return np.array_equal(np.asarray(prepared), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_short_side_and_centre_are_torchvisions(interpolation: str) -> None:
    for size, resize, crop in product(SIZES, (8, 31, 48), ((8, 8), (31, 29), (50, 7), (64, 65))):
        image = picture(*size)
        theirs = Compose([Resize(resize, InterpolationMode(interpolation)), CenterCrop(crop)])
        ours = Preparation(resize=resize, crop=crop, interpolation=interpolation)
        assert same(prepare_picture(image, ours), theirs(image)), (size, resize, crop)
        assert prepare_picture(image, ours).size == crop[::-1]


def test_resizing_to_a_pair_and_either_step_alone_are_torchvisions() -> None:
    for size in SIZES:
        image = picture(*size)
        assert same(prepare_picture(image, Preparation(resize=(17, 24))), Resize((17, 24))(image))
        assert same(prepare_picture(image, Preparation(resize=20)), Resize(20)(image))
        assert same(prepare_picture(image, Preparation(crop=(20, 33))), CenterCrop((20, 33))(image))
        assert prepare_picture(image, Preparation()) is image


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_every_crop_mode_is_timms(mode: str, interpolation: str) -> None:
    from timm.data import create_transform, resolve_data_config

    for sides, share in product([(32, 32), (24, 40), (37, 21)], [0.875, 0.9, 0.95, 1.0]):
        published = {
            "input_size": (3, *sides), "crop_pct": share, "crop_mode": mode, "interpolation": interpolation,
            "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3),
        }  # fmt: skip
        transform = create_transform(**resolve_data_config({}, pretrained_cfg=published))
        ours = timm_source.prepared_for(published, {}, source="here")
        normalize = Normalize(Normalization(*ours.normalization))
        for size in SIZES[1:]:
            image = picture(*size)
            pixels = to_unit_range(pil_to_tensor(prepare_picture(image, ours))[None])
            assert torch.equal(normalize(pixels)[0], transform(image)), (sides, share, size)


def test_timms_defaults_hold_where_a_configuration_is_silent() -> None:
    from timm.data import create_transform, resolve_data_config

    image = picture(300, 411)
    for published in (
        {"architecture": "any"},
        {"input_size": (3, 64, 64), "test_input_size": (3, 96, 96), "crop_pct": None},
    ):
        ours = timm_source.prepared_for(published, {}, source="here")
        theirs = create_transform(**resolve_data_config({}, pretrained_cfg=published))
        pixels = to_unit_range(pil_to_tensor(prepare_picture(image, ours))[None])
        assert torch.equal(Normalize(Normalization(*ours.normalization))(pixels)[0], theirs(image))


def test_the_transforms_of_torchvisions_published_weights() -> None:
    image = picture(301, 407)
    for name in ("resnet18", "resnet50", "inception_v3", "efficientnet_b1", "vit_h_14", "swin_v2_t", "regnet_y_16gf"):
        for weights in models.get_model_weights(name):
            transforms = weights.transforms()
            ours = torchvision_source.prepared_for(transforms, source="here")
            pixels = to_unit_range(pil_to_tensor(prepare_picture(image, ours))[None])
            assert torch.equal(Normalize(Normalization(*ours.normalization))(pixels)[0], transforms(image)), weights


def test_a_margin_has_the_colour_of_the_fill_and_makes_grey_colour() -> None:
    grey = Image.fromarray(np.full((4, 6), 9, np.uint8))
    filled = np.asarray(prepare_picture(grey, Preparation(crop=(4, 7), fill=(1, 2, 3))))
    assert filled[:, :6].tolist() == [[[9, 9, 9]] * 6] * 4
    assert filled[:, 6].tolist() == [[1, 2, 3]] * 4
    assert np.asarray(prepare_picture(grey, Preparation(crop=(5, 6), fill=(7,))))[4].tolist() == [7] * 6


def test_a_picture_too_long_to_be_resized_is_refused() -> None:
    with pytest.raises(ValueError, match="too long to be resized"):
        prepare_picture(Image.new("L", (100_000, 1)), Preparation(resize=256))


PREPARED = "resize=20:bicubic,crop=16x18"


def as_expected(pictures: list[Image.Image]) -> torch.Tensor:
    theirs = Compose([Resize(20, InterpolationMode.BICUBIC), CenterCrop((16, 18))])
    return torch.stack([pil_to_tensor(theirs(each)) for each in pictures])


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_folders_and_encoded_columns_are_prepared_and_read_again(tmp_path: Path) -> None:
    pictures = [picture(21 + place, 40 - place, seed=place) for place in range(6)]
    for place, each in enumerate(pictures):
        (tmp_path / "set" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        each.save(tmp_path / "set" / "ab"[place % 2] / f"{place}.png")
    table = pa.table({"image": [png(each) for each in pictures], "label": [0, 1] * 3})
    pq.write_table(table, tmp_path / "t.parquet")
    folder, parquet = (load_dataset(tmp_path / name, prepare=PREPARED) for name in ("set", "t.parquet"))
    order = [int(Path(name).stem) for name in folder.filenames]
    assert torch.equal(folder.images, as_expected([pictures[place] for place in order]))
    assert torch.equal(parquet.images, as_expected(pictures))
    for dataset in (folder, parquet):
        some = dataset.subset(torch.tensor([4, 1, 3]))
        again = some.read_again(some.preparation, some.ids)
        assert (again.ids.tolist(), again.filenames) == (some.ids.tolist(), some.filenames)
        assert torch.equal(again.images, some.images)
        assert some.read_again(Preparation(resize=(5, 6)), some.ids).shape == (3, 5, 6)
        assert some.read_again(Preparation(resize=9, crop=(9, 9)), some.ids).shape == (3, 9, 9)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_are_prepared_as_pictures_are(channels: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, channels, 24, 30), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([0, 1, 1, 0]))
    dataset = load_dataset(tmp_path / "a.npz", prepare=PREPARED)
    planes = [Image.fromarray(plane) for plane in pixels.reshape(-1, 24, 30)]
    assert torch.equal(dataset.images, as_expected(planes).reshape(4, channels, 16, 18))
    some = dataset.subset(torch.tensor([3, 0]))
    assert torch.equal(some.read_again(some.preparation, some.ids).images, some.images)


def test_the_digits_and_a_limited_set_are_read_again() -> None:
    dataset = load_dataset("digits", limit=20, prepare="resize=24:lanczos")
    some = dataset.subset(torch.tensor([7, 2]))
    assert torch.equal(some.read_again(some.preparation, some.ids).images, some.images)


def test_an_image_size_goes_before_a_preparation() -> None:
    by_size = load_dataset("digits", limit=3, image_size=20)
    both = load_dataset("digits", limit=3, image_size=20, prepare="resize=24")
    assert torch.equal(by_size.images, both.images)
    assert both.preparation == Preparation.square(20)
    assert load_dataset("digits", limit=3).preparation is None
    assert load_dataset("digits", limit=3, prepare="mean=0.5,std=0.5").preparation is None


def test_bad_preparations_are_refused_before_anything_is_read() -> None:
    with pytest.raises(OptionError, match=r"prepare: expected resize=256:bicubic .* got 'size=3'"):
        load_dataset("nowhere", prepare="size=3")
    with pytest.raises(DataError, match="pictures that fit resize=100000"):
        load_dataset("digits", limit=2, prepare="resize=100000")


def test_without_antialiasing_it_is_torchvisions_resizing_of_tensors() -> None:
    for size, name in product(SIZES, ("bilinear", "bicubic")):
        image = picture(*size)
        theirs = Compose([Resize(23, InterpolationMode(name), antialias=False), CenterCrop((20, 22))])
        ours = Preparation(resize=23, crop=(20, 22), interpolation=name, antialias=False)
        assert torch.equal(pil_to_tensor(prepare_picture(image, ours)), theirs(pil_to_tensor(image))), (size, name)
    grey = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10))
    assert prepare_picture(grey, Preparation(resize=3, antialias=False)).size == (5, 3)
    assert Preparation.parse("resize=9,antialias=false").spelled == "resize=9,antialias=false"
