"""The magnitude tables, the learned policies and whole augmented pictures, against the installed torchvision."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment

from assay.augment.operations import OPERATIONS
from assay.augment.plan import apply_plan
from assay.augment.published import AutoAugment, RandAugment, TrivialAugmentWide, magnitude_table, sub_policies

SPACES = {
    "randaugment": lambda bins, size: autoaugment.RandAugment()._augmentation_space(bins, size),
    "autoaugment": lambda bins, size: autoaugment.AutoAugment()._augmentation_space(bins, size),
    "trivialaugment": lambda bins, size: autoaugment.TrivialAugmentWide()._augmentation_space(bins),
}


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (7, 19)], ids=str)
@pytest.mark.parametrize("bins", [10, 31])
@pytest.mark.parametrize("space", SPACES)
def test_magnitudes_are_torchvisions(space, bins, size):
    theirs = SPACES[space](bins, size)
    ours = magnitude_table(space, bins=bins, height=size[0], width=size[1])
    assert set(ours.names) == set(theirs)
    for row, name in enumerate(ours.names):
        magnitudes, signed = theirs[name]
        tabled = magnitudes.double().expand(bins)
        start = 1.0 if name in {"Brightness", "Color", "Contrast", "Sharpness"} else 0.0
        assert torch.equal(ours.signed_magnitudes[0, row], start + tabled)
        assert torch.equal(ours.signed_magnitudes[1, row], start - tabled if signed else start + tabled)


@pytest.mark.parametrize("policy", autoaugment.AutoAugmentPolicy, ids=lambda policy: policy.value)
def test_learned_policies_are_torchvisions(policy):
    theirs = autoaugment.AutoAugment(policy).policies
    ours, names = sub_policies(policy.value), magnitude_table("autoaugment", bins=10, height=1, width=1).names
    rebuilt = [
        tuple((names[w], p) for w, p in zip(which, probability, strict=True))
        for which, probability in zip(ours.which.tolist(), ours.probability.tolist(), strict=True)
    ]
    assert rebuilt == [tuple((name, p) for name, p, _ in pair) for pair in theirs]
    bins = [[0 if bin_ is None else bin_ for _, _, bin_ in pair] for pair in theirs]
    assert ours.bins.tolist() == bins


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", [0, 128])
@pytest.mark.parametrize(
    "policy",
    [
        RandAugment(),
        RandAugment(operations=3, magnitude=30),
        TrivialAugmentWide(),
        AutoAugment("cifar10"),
        AutoAugment("imagenet"),
        AutoAugment("svhn"),
    ],
    ids=str,
)
def test_augmented_pictures_are_torchvisions(policy, fill, interpolation):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(120, 3, 5, 5, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(40, 31), mode="bicubic").clamp(0, 1).mul(255).byte()
    plan = policy.plan(torch.arange(120), seed=5, epoch=0, height=40, width=31)
    ours = apply_plan(images, plan, fill=fill, interpolation=interpolation)
    blends = {"Brightness", "Color", "Contrast", "Sharpness"}
    for index in range(120):
        picture = Image.fromarray(images[index].permute(1, 2, 0).numpy())
        for code, magnitude in zip(plan.codes[index].tolist(), plan.magnitudes[index].tolist(), strict=True):
            name = OPERATIONS[code].name
            tabled = magnitude - 1.0 if name in blends else magnitude
            picture = autoaugment._apply_op(picture, name, tabled, InterpolationMode(interpolation), [fill] * 3)
        assert np.array_equal(ours[index].permute(1, 2, 0).numpy(), np.array(picture)), plan.describe(index)
