"""What a batch is made of and goes through: order, windows, mirroring, mixing, perturbation, running statistics."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import Batch, ImageDataset, to_unit_range
from assay.errors import DataError, DivergedError, OptionError
from assay.training.adversaries import GuardedAdversary, input_gradient, n_fgsm, pgd, watch_overfitting
from assay.training.augmentation import AlternatingFlipCrop, View, build_augmentation, choose_side, cutmix, mixup
from assay.training.averaging import refresh_batchnorm
from assay.training.loop import fit
from assay.training.recipes import Recipe
from assay.training.sampling import Sampler, split_batch
from assay.training.sections import NFGSMAdversary, Nothing, PGDAdversary, PolicyAugment


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 50), batch_size=st.integers(1, 60), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_sample_at_most_once_and_all_but_a_rest(
    n: int, batch_size: int, seed: int, epoch: int
) -> None:
    sampler = Sampler(n, batch_size, seed)
    first = epoch * sampler.steps_per_epoch
    seen = torch.cat([sampler.indices(first + i) for i in range(sampler.steps_per_epoch)])
    assert len(seen.unique()) == len(seen) == n - n % min(n, batch_size)
    assert sampler.epoch(first) == epoch
    assert sampler.steps(0.001) == 1


@given(world=st.integers(1, 4), size=st.integers(1, 9))
def test_processes_share_a_batch_without_gap_or_overlap(world: int, size: int) -> None:
    dataset = ImageDataset(torch.zeros(20, 1, 2, 2, dtype=torch.uint8), torch.arange(20) % 2, ("a", "b"))
    indices = torch.randperm(20, generator=torch.Generator().manual_seed(1))[:16]
    parts = [split_batch(dataset, indices, size=size, rank=rank, world=world) for rank in range(world)]
    by_number = {number: batch.ids for part in parts for number, batch in part}
    assert torch.equal(torch.cat([by_number[number] for number in sorted(by_number)]), indices)
    assert sum(len(part) for part in parts) == len(by_number)


def naive_shift(image: Tensor, down: int, right: int, *, mirrored: bool) -> Tensor:
    """One image: mirror it first, pad by reflection with torch, cut."""
    size = image.shape[1]
    padded = F.pad((image.flip(2) if mirrored else image)[None].float(), (2, 2, 2, 2), mode="reflect")[0]
    return padded[:, down : down + size, right : right + size].to(torch.uint8)


def test_alternating_pictures_are_mirrored_shifts_and_change_side_every_epoch() -> None:
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(100, 140)
    flip = AlternatingFlipCrop(padding=2)
    sides = []
    for epoch in range(2):
        result = flip(images, ids, seed=3, epoch=epoch)
        assert result.shape == images.shape
        side = []
        for image, got in zip(images, result, strict=True):
            matches = [
                mirrored
                for mirrored in (False, True)
                for down in range(5)
                for right in range(5)
                if torch.equal(naive_shift(image, down, right, mirrored=mirrored), got)
            ]
            assert len(matches) == 1
            side.append(matches[0])
        sides.append(side)
    assert [not side for side in sides[0]] == sides[1]
    assert 5 < sum(sides[0]) < 35


def test_without_flip_or_padding_alternating_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 1, 5, 6), dtype=torch.uint8)
    assert torch.equal(AlternatingFlipCrop(padding=0, flip=False)(images, torch.arange(4), seed=0, epoch=3), images)


def test_a_recipe_can_name_any_policy() -> None:
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augment = build_augmentation(PolicyAugment(policy="flip()"))
    assert augment is not None
    result = augment(images, torch.arange(6), seed=0, epoch=0)
    assert all(
        torch.equal(got, image) or torch.equal(got, image.flip(2)) for got, image in zip(result, images, strict=True)
    )
    with pytest.raises(OptionError, match=r"augment\.policy"):
        build_augmentation(PolicyAugment(policy="flop()"))
    assert build_augmentation(Nothing()) is None


def test_windows_are_cut_out_of_the_image() -> None:
    images = torch.arange(2 * 36).reshape(2, 1, 6, 6).to(torch.uint8)
    batch = Batch(images, torch.tensor([0, 1]), torch.tensor([0, 1]))
    torch.manual_seed(0)
    window = View(None, 4, seed=0, epoch=0)(batch)
    assert window.shape == (2, 1, 4, 4)
    top, left = divmod(int(window[0, 0, 0, 0]), 6)
    assert torch.equal(window, images[:, :, top : top + 4, left : left + 4])
    assert torch.equal(View(None, 9, seed=0, epoch=0)(batch), images)


def test_resizing_keeps_the_whole_picture_and_its_shape_as_pillow_does() -> None:
    images = torch.randint(0, 256, (3, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    small = View(None, 8, seed=0, epoch=0, shrink="resize")(batch)
    assert small.shape == (3, 3, 8, 12)
    for ours, picture in zip(small, images, strict=True):
        theirs = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((12, 8), Image.Resampling.BILINEAR)
        distance = ours.permute(1, 2, 0).int() - torch.from_numpy(np.array(theirs)).int()
        assert int(distance.abs().max()) <= 1
    assert torch.equal(View(None, 20, seed=0, epoch=0, shrink="resize")(batch), images)


def test_the_side_follows_the_stages() -> None:
    stages = ((0.0, 24), (0.5, 28), (0.8, 32))
    assert [choose_side(stages, progress=p) for p in (0, 0.49, 0.5, 0.79, 0.8, 1)] == [24, 24, 28, 28, 32, 32]
    assert choose_side((), progress=0.3) is None
    assert choose_side(((0.5, 24),), progress=0.3) is None


@pytest.mark.parametrize("mix", [mixup, cutmix])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_mixed_targets_say_what_the_pixels_are_made_of(mix: object, seed: int) -> None:
    """Image i is constant i, so a mean of pixels tells the shares of its two sources."""
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 6, 5).clone()
    targets = torch.eye(4)
    torch.manual_seed(seed)
    mixed, blended = mix(images, targets, alpha=1.0)  # type: ignore[operator]
    torch.testing.assert_close(blended.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), blended @ torch.arange(4.0), rtol=1e-5, atol=1e-5)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(4.0))  # the input is left as it was


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_every_sample_is_mixed_in_its_own_proportion(mix: object) -> None:
    torch.manual_seed(0)
    images, targets = torch.rand(64, 3, 8, 8), torch.eye(64)
    _, blended = mix(images, targets, alpha=1.0)  # type: ignore[operator]
    shares = blended.diagonal()
    assert len(shares.unique()) > 20
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_bytes_and_labels_are_not_mixed(mix: object) -> None:
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    with pytest.raises(DataError, match=r"^images: expected floats \(B, C, H, W\), got torch\.uint8 \(4, 3, 8, 8\)$"):
        mix((images * 255).byte(), targets, alpha=1.0)  # type: ignore[operator]
    with pytest.raises(DataError, match=r"^targets: expected a distribution .* 4 images.*, got torch\.int64 \(4,\)$"):
        mix(images, torch.arange(4), alpha=1.0)  # type: ignore[operator]


def linear_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def test_fgsm_and_pgd_move_a_linear_model_along_the_sign_of_its_gradient() -> None:
    model, labels = linear_model(), torch.tensor([0, 1, 2, 0])
    images = torch.full((4, 3, 2, 2), 0.5)
    expected = images + 0.1 * input_gradient(model, images, labels).sign()
    single = n_fgsm(model, images, labels, epsilon=0.05, step_size=0.1, noise=0.0)
    torch.testing.assert_close(single, expected)
    many = pgd(model, images, labels, epsilon=0.05, step_size=0.02, steps=20)
    corner = images + 0.05 * input_gradient(model, images, labels).sign()
    torch.testing.assert_close(many, corner)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_perturbed_pictures_stay_pictures() -> None:
    model, labels = linear_model(), torch.tensor([0, 1])
    images = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    for attacked in (
        n_fgsm(model, images, labels, epsilon=0.3, step_size=0.3, noise=2.0),
        pgd(model, images, labels, epsilon=0.3, step_size=0.1, steps=3),
    ):
        assert 0 <= attacked.min() <= attacked.max() <= 1


def test_an_attack_leaves_running_statistics_as_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 3))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    input_gradient(model.train(), torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


class Masked(nn.Module):
    """Wrong on brighter pictures, and hiding it: at a training picture itself the gradient says "darker".

    Anywhere else it says "brighter", so only an attack that moves before it looks finds the fault.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.flatten(1).mean(dim=1)
        moved = ((brightness - 128 / 255).abs() > 1e-6).float().detach()
        logit = 1 + 0.1 * brightness * (1 - 2 * moved) - 3 * (brightness > 0.515).float()
        return self.scale * torch.stack([logit, 0 * brightness], dim=1)


def test_the_monitor_separates_masked_gradients_from_useful_ones() -> None:
    dataset = ImageDataset(
        torch.full((30, 1, 4, 4), 128, dtype=torch.uint8), torch.zeros(30, dtype=torch.int64), ("a", "b")
    )
    options = NFGSMAdversary(watch=30, gap=0.5, epsilon=0.02)
    seen = watch_overfitting(Masked(), dataset, options=options, seed=0)
    assert (seen.fgsm_accuracy, seen.pgd_accuracy, seen.n) == (1.0, 0.0, 30)
    guard = GuardedAdversary(options, dataset, seed=0)
    assert guard.watch(Masked(), epoch=0) == (seen, True)
    without_fallback = GuardedAdversary(options.model_copy(update={"fallback_steps": 0}), dataset, seed=0)
    with pytest.raises(
        DivergedError, match="epoch 1: catastrophic overfitting: 100% accurate under one step, 0% under"
    ):
        without_fallback.watch(Masked(), epoch=0)
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    assert not guard.watch(linear, epoch=0)[1]
    assert GuardedAdversary(Nothing(), dataset, seed=0).watch(linear, epoch=0) == (None, False)


def test_the_monitor_runs_in_the_precision_of_training() -> None:
    class Recording(nn.Linear):
        dtypes: ClassVar[set[torch.dtype]] = set()

        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images.flatten(1))
            if not self.training:
                self.dtypes.add(logits.dtype)
            return logits

    dataset = ImageDataset(torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.arange(20) % 2, ("a", "b"))
    recipe = Recipe(name="x", epochs=1, batch_size=20, precision="bfloat16", adversary=PGDAdversary(watch=20))
    fit(Recording(16, 2), dataset, recipe=recipe)
    assert torch.bfloat16 in Recording.dtypes


def test_running_statistics_become_those_of_the_data() -> None:
    images = torch.randint(0, 256, (50, 2, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = ImageDataset(images, torch.arange(50) % 2, ("a", "b"))
    model = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Flatten(), nn.Dropout(), nn.Linear(32, 2)).train()
    assert refresh_batchnorm(model, dataset, batch_size=25) == 1
    pixels = to_unit_range(images, torch.float64)
    torch.testing.assert_close(model[0].running_mean.double(), pixels.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    variance = pixels.transpose(0, 1).flatten(1).var(dim=1)
    torch.testing.assert_close(model[0].running_var.double(), variance, rtol=1e-5, atol=1e-6)
    assert model[0].momentum == 0.3
    assert model.training
    assert refresh_batchnorm(nn.Linear(2, 2), dataset) == 0
