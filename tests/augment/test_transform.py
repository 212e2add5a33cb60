"""The transform inside torchvision's Compose and torch's DataLoader."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from assay.augment.published import RandAugment
from assay.augment.transform import AugmentTransform
from assay.errors import DataError, OptionError


class Pictures(Dataset):
    def __init__(self, transform):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=generator)
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index].permute(1, 2, 0).numpy()))


def load(transform, *, workers, shuffle=False, batch_size=5):
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(Pictures(transform), batch_size, num_workers=workers, shuffle=shuffle, generator=generator)
    return torch.cat(list(loader))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_pictures_do_not_depend_on_workers_batches_or_order():
    chain = v2.Compose([AugmentTransform("crop(2) + randaugment", seed=7), v2.PILToTensor()])
    alone = load(chain, workers=0)
    assert torch.equal(load(chain, workers=1), alone)
    assert torch.equal(load(chain, workers=8, batch_size=3), alone)
    shuffled = load(chain, workers=2, shuffle=True)
    assert sorted(map(bytes, shuffled.numpy())) == sorted(map(bytes, alone.numpy()))
    assert not torch.equal(shuffled, alone)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_an_epoch_reaches_persistent_workers():
    augment = AugmentTransform(RandAugment(), seed=7)
    loader = DataLoader(Pictures(v2.Compose([augment, v2.PILToTensor()])), 8, num_workers=2, persistent_workers=True)
    first = torch.cat(list(loader))
    assert torch.equal(torch.cat(list(loader)), first)
    augment.set_epoch(1)
    assert not torch.equal(torch.cat(list(loader)), first)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_type_comes_back_as_it_was(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13) if mode == "L" else (9, 13, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    tensor = v2.functional.pil_to_tensor(picture)
    augment = AugmentTransform("rotate(20) + invert", seed=3)
    result = augment(picture)
    assert (result.mode, result.size) == (mode, (13, 9))
    assert torch.equal(v2.functional.pil_to_tensor(result), augment(tensor))
    assert not torch.equal(augment(tensor), tensor)
    assert type(augment(tv_tensors.Image(tensor))) is tv_tensors.Image
    assert torch.equal(augment(torch.stack([tensor, tensor]))[1], augment(tensor))


def test_without_a_seed_torchs_generator_decides():
    augment, image = AugmentTransform(RandAugment()), torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(0)
    first = [augment(image) for _ in range(8)]
    torch.manual_seed(0)
    again = [augment(image) for _ in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({bytes(result.numpy()) for result in first}) > 4


def test_different_pictures_get_different_draws():
    shifted = AugmentTransform("translate_x(0, 60)", seed=0, fill=255)
    blanks = {int((shifted(torch.full((1, 1, 64), level, dtype=torch.uint8)) == 255).sum()) for level in range(40)}
    assert len(blanks) > 15


def test_a_sample_id_decides_before_the_bytes_do():
    augment, image = AugmentTransform("rotate(-90, 90)", seed=0), torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    assert torch.equal(augment(image, sample_id=4), augment(image, sample_id=4))
    assert not torch.equal(augment(image, sample_id=4), augment(image, sample_id=5))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGBA", (4, 4)), "image: expected a picture of mode RGB or L, got mode RGBA"),
        (np.zeros((4, 4, 3), np.uint8), "image: expected a PIL image or a uint8 tensor, got ndarray"),
        (torch.zeros(3, 4, 4), r"images: expected uint8 \(B, C, H, W\) .*, got torch.float32 \(1, 3, 4, 4\)"),
        (torch.zeros(7, 4, 3, dtype=torch.uint8), r"images: expected uint8 .*is it \(B, H, W, C\)\?"),
    ],
    ids=["mode", "array", "float", "layout"],
)
def test_anything_else_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        AugmentTransform("flip")(image)


def test_a_seed_is_a_whole_number():
    with pytest.raises(OptionError, match="seed: expected a whole number or None, got 0.5"):
        AugmentTransform("flip", seed=0.5)
