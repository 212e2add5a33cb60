"""Padding, cropping and mirroring of a batch, against a loop over images."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from assay.augment.policies import flip_crop


def crop_one(image, *, padding, top, left, mirrored):
    _, height, width = image.shape
    cut = F.pad(image, [padding] * 4)[:, top : top + height, left : left + width]
    return cut.flip(2) if mirrored else cut


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 5), st.booleans())
def test_batch_equals_a_loop_over_images(height, width, channels, padding, flip):
    images = torch.randint(0, 256, (6, channels, height, width), dtype=torch.uint8)
    ids = torch.tensor([5, 3, 9, 100, 0, 77])
    key = {"seed": 3, "epoch": 2}
    plan = flip_crop(padding=padding, flip=flip).plan(ids, height=height, width=width, **key)
    tops, lefts = plan.places[:, 0].unbind(dim=1)
    mirrored = plan.codes[:, 1] > 0 if flip else [0] * 6
    expected = torch.stack(
        [
            crop_one(image, padding=padding, top=int(t), left=int(x), mirrored=bool(m))
            for image, t, x, m in zip(images, tops, lefts, mirrored, strict=True)
        ]
    )
    before = images.clone()
    assert torch.equal(flip_crop(padding=padding, flip=flip)(images, ids, **key), expected)
    assert torch.equal(images, before)


def test_a_sample_gets_the_same_picture_in_any_batch():
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    ids = torch.arange(40) + 1000
    augment = flip_crop(padding=2)
    whole = augment(images, ids, seed=0, epoch=1)
    order = torch.randperm(40)
    shuffled = augment(images[order], ids[order], seed=0, epoch=1)
    singles = torch.cat([augment(images[i : i + 1], ids[i : i + 1], seed=0, epoch=1) for i in range(40)])
    assert torch.equal(shuffled, whole[order])
    assert torch.equal(singles, whole)
    assert not torch.equal(augment(images, ids, seed=0, epoch=2), whole)
