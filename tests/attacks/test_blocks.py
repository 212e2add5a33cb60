"""An attack in blocks of samples, as sets of large images are attacked, finds what it finds on all at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.attacks import measure as module
from assay.attacks.examples import AttackedImages, describe_attack, pick_gallery, pick_samples, show_samples
from assay.attacks.measure import measure_epsilon_curve, measure_in_blocks, measure_robust_accuracy, split_into_blocks
from assay.attacks.methods.gradient import PGD
from assay.attacks.result import AttackResult
from assay.data.dataset import ImageDataset
from assay.records.attack import RobustAccuracy
from assay.records.base import Record


def timeless(record: Record) -> Record:
    if not isinstance(record, RobustAccuracy):
        return record.model_copy(update={"seconds": 0.0})
    # How many passes one batch takes depends on the rows in it; means over samples are rounded in another order.
    same = {"seconds": 0.0, "forward_equivalents": 0.0}
    losses = tuple(round(loss, 5) for loss in record.loss_per_step)
    return record.model_copy(update={**same, "loss_per_step": losses, "mean_distance": round(record.mean_distance, 6)})


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch, small_set: ImageDataset) -> None:
    monkeypatch.setattr(module, "BLOCK_VALUES", 20 * small_set.images[0].numel())


@pytest.mark.parametrize("name", ["fgsm", "pgd", "signed-steps", "noise"])
@pytest.mark.parametrize("target", [None, 1])
def test_the_record_is_that_of_all_at_once(
    name: str, target: int | None, conv_net: nn.Module, small_set: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_set if target is None else small_set.subset(small_set.labels != target)
    options: dict[str, Any] = {
        "attack": name,
        "epsilon": 0.03,
        "seed": 4,
        "target_class": target,
        "precision": "float32",
    }
    whole = measure_robust_accuracy(conv_net, dataset, **options)
    monkeypatch.setattr(module, "BLOCK_VALUES", 20 * dataset.images[0].numel())
    parts = measure_robust_accuracy(conv_net, dataset, **options)
    assert timeless(parts.record) == timeless(whole.record)
    assert torch.allclose(parts.result.adversarial, whole.result.adversarial, atol=1e-6)
    assert torch.equal(parts.result.broken_by, whole.result.broken_by) and parts.result.methods == whole.result.methods


@pytest.mark.parametrize("attack", [PGD(steps=4), "min-norm"])
def test_the_curve_is_that_of_all_at_once(
    attack: object, conv_net: nn.Module, small_set: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"attack": attack, "epsilons": (0.01, 0.03), "precision": "float32"}
    whole = measure_epsilon_curve(conv_net, small_set, **options)
    monkeypatch.setattr(module, "BLOCK_VALUES", 20 * small_set.images[0].numel())
    assert timeless(measure_epsilon_curve(conv_net, small_set, **options)) == timeless(whole)


def test_what_is_told_of_the_images_is_that_of_all_at_once(
    conv_net: nn.Module, small_set: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"attack": PGD(steps=6), "epsilon": 12 / 255, "precision": "float32"}
    whole = measure_robust_accuracy(conv_net, small_set, **options)
    monkeypatch.setattr(module, "BLOCK_VALUES", 20 * small_set.images[0].numel())
    seen = AttackedImages(small_set, shown=5)
    sizes: list[int] = []

    def see(rows: Tensor, result: AttackResult) -> None:
        sizes.append(len(rows))
        seen.add(rows, result)

    record, outcome = measure_in_blocks(conv_net, small_set, **options, on_block=see)
    assert sizes == [20, 20, 8] and not hasattr(outcome, "adversarial")
    described, expected = seen.describe(record, outcome), describe_attack(whole, small_set)
    assert described.median_ssim == pytest.approx(expected.median_ssim, abs=1e-6)
    assert described.transitions == expected.transitions and described.broken == expected.broken > 0
    gallery, all_at_once = seen.gallery(record, outcome), pick_gallery(whole, small_set, shown=5)
    assert [each.sample_id for each in gallery.examples] == [each.sample_id for each in all_at_once.examples]
    assert [each.adversarial for each in gallery.examples] == [each.adversarial for each in all_at_once.examples]
    assert show_samples(record, outcome, small_set).sheet == pick_samples(whole, small_set).sheet


@pytest.mark.usefixtures("in_blocks")
def test_steps_are_counted_over_all_samples(conv_net: nn.Module, small_set: ImageDataset) -> None:
    told: list[tuple[int, int]] = []
    measure_robust_accuracy(
        conv_net, small_set, attack="signed-steps", on_step=lambda _, left, n: told.append((left, n))
    )
    assert {n for _, n in told} == {48}
    assert [left for left, _ in told] == sorted((left for left, _ in told), reverse=True) and told[-1][0] == 0


def test_small_images_are_one_block_and_large_ones_are_not(small_set: ImageDataset) -> None:
    assert len(split_into_blocks(small_set)) == 1
    pixels = torch.zeros(1, 3, 2048, 2048, dtype=torch.uint8).expand(12, 3, 2048, 2048)
    large = ImageDataset(pixels, torch.arange(12) % 2, ("a", "b"))
    assert [block.tolist() for block in split_into_blocks(large)] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
