"""A preparation that is wrong in one aspect is caught, the right one passes, and chance seldom looks like a fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from assay.comparison.statistics import holm
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.sources import load_dataset
from assay.diagnostics.alternatives import chance_of_gain
from assay.diagnostics.batchnorm import audit_normalization
from assay.diagnostics.preparation import audit_preparation, neighbours
from assay.models.wrappers import ChannelsReversed, Normalize, Normalized, choose_normalization
from assay.records.configuration import PreparationAudit
from assay.records.preparation import Preparation
from assay.verdict import judge

RIGHT = "resize=16:bicubic,crop=14"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of many sizes in two class folders, whose names say nothing: the tests label them anew."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for place in range(240):
        (folder / "ab"[place % 2]).mkdir(exist_ok=True)
        height, width = random.integers(20, 40, 2)
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[place % 2] / f"{place:03}.png")
    return folder


class Waves(nn.Module):
    """A little change of all pixels changes its answer: Σ v·cos(W x)."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.fc = nn.Linear(3 * 14 * 14, 32, bias=False)
        self.fc.weight.data = 0.5 * torch.randn(32, 588, generator=draws)
        self.last = nn.Parameter(torch.randn(32, 2, generator=draws))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)).cos() @ self.last


def network(normalization: str = "none") -> nn.Module:
    return Normalized(Normalize(choose_normalization(normalization, channels=3)), Waves()).eval()


def labelled(dataset: ImageDataset, by: ImageDataset, model: nn.Module) -> ImageDataset:
    """``dataset`` with the classes that ``model`` sees in the same pictures as prepared in ``by``."""
    with torch.no_grad():
        labels = model(to_unit_range(by.images)).argmax(dim=1)
    return replace(dataset, labels=labels)


@pytest.mark.parametrize(
    ("wrong", "best"),
    [
        ("resize=16,crop=14", "resized bicubic"),
        ("resize=14:bicubic,crop=14", "cropped to 0.875 of the short side"),
        ("squash=14:bicubic", "cropped to 0.875 of the short side"),
        ("resize=16:bicubic,crop=14,antialias=false", "resized bicubic"),
    ],
)
def test_the_right_sizes_are_found_among_the_neighbours(wrong: str, best: str, pictures: Path) -> None:
    model = network()
    right = load_dataset(pictures, prepare=RIGHT)
    audit = audit_preparation(model, labelled(load_dataset(pictures, prepare=wrong), right, model))
    assert audit.best is not None
    assert (audit.best.name, audit.best.accuracy, audit.not_tried) == (best, 1.0, "")
    assert audit.as_prepared.accuracy < 0.9
    verdict = next(each for each in judge([audit]) if each.rule == "A514")
    points = f"{100 * (1 - audit.as_prepared.accuracy):.1f} points more {best}"
    assert verdict.status == "warn"
    assert points in verdict.measured
    assert PreparationAudit.model_validate_json(audit.model_dump_json()) == audit


def test_the_right_preparation_passes(pictures: Path) -> None:
    model = network()
    right = load_dataset(pictures, prepare=RIGHT)
    audit = audit_preparation(model, labelled(right, right, model))
    assert (audit.best, audit.as_prepared.accuracy, audit.n) == (None, 1.0, 240)
    names = [each.name for each in audit.variants]
    assert "resized bilinear" in names
    assert "resized without antialiasing" in names
    assert "cropped to 0.875 of the short side" not in names  # its own
    assert {"squashed, nothing cropped", "in BGR", "in [0, 255] in place of its own normalisation"} <= set(names)
    assert (audit.preparation, audit.source, audit.resized) == (f"{RIGHT},mean=0,std=1", "prepare", True)


@pytest.mark.parametrize(
    ("meant", "handed_over", "found"),
    [
        ("imagenet", "0.5/0.5", "in ImageNet's mean and deviation in place of its own normalisation"),
        ("0.5/0.5", "imagenet", "in [−1, 1] in place of its own normalisation"),
        ("none", "imagenet", "in [0, 1] in place of its own normalisation"),
        ("0/0.003921569", "0.5/0.5", "in [0, 255] in place of its own normalisation"),
    ],
)
def test_a_wrong_mean_in_the_model_is_caught_by_both_rules(
    meant: str, handed_over: str, found: str, pictures: Path
) -> None:
    right, wrong, data = network(meant), network(handed_over), load_dataset(pictures, prepare=RIGHT)
    data = labelled(data, data, right)
    for audit, rule in ((audit_preparation(wrong, data), "A514"), (audit_normalization(wrong, data), "A512")):
        verdict = next(each for each in judge([audit]) if each.rule == rule)
        assert verdict.status in {"warn", "error"}, (rule, verdict.measured)
        assert found in verdict.measured
    for audit in (audit_preparation(right, data), audit_normalization(right, data)):
        assert {each.rule: each.status for each in judge([audit])}.items() >= {
            ("A514" if isinstance(audit, PreparationAudit) else "A512", "pass")
        }


def test_the_wrong_order_of_channels_is_caught(pictures: Path) -> None:
    model, data = network(), load_dataset(pictures, prepare=RIGHT)
    data = labelled(data, data, ChannelsReversed(model))
    assert audit_preparation(model, data).best.name == "in BGR"


def test_what_cannot_be_read_again_is_said(pictures: Path, tmp_path: Path) -> None:
    model, data = network(), load_dataset(pictures, prepare=RIGHT)
    sizes = "sizes and interpolations were not tried: "
    tensors = ImageDataset(data.images, data.labels, data.classes)
    assert audit_preparation(model, tensors).not_tried.startswith(f"{sizes}the images are final")
    changed = replace(data, images=255 - data.images)
    assert audit_preparation(model, changed).not_tried == f"{sizes}what is stored is not what was measured"
    np.savez(tmp_path / "a.npz", images=data.images.numpy(), labels=data.labels.numpy())
    stored = load_dataset(tmp_path / "a.npz")
    audit = audit_preparation(model, stored)
    assert audit.not_tried == f"{sizes}the pictures are used as they are stored"
    assert [each.name for each in audit.variants][-1] == "in BGR"
    again = load_dataset(tmp_path / "a.npz", prepare="resize=16,crop=14")
    (tmp_path / "a.npz").unlink()
    assert "a.npz" in audit_preparation(model, again).not_tried
    assert audit_preparation(model, replace(stored, read_again=None), n=7).n == 7


def test_every_neighbour_has_the_size_of_the_prepared_pictures(pictures: Path) -> None:
    for text, size in (
        ("resize=16,crop=14", (14, 14)), ("cover=18x12:lanczos,crop=16x10", (16, 10)), ("squash=9x13", (9, 13)),
        ("border=12,crop=12,fill=1,2,3", (12, 12)),
    ):  # fmt: skip
        dataset = load_dataset(pictures, prepare=text, limit=4)
        assert dataset.shape[1:] == size
        ways = neighbours(dataset.preparation, size=size)
        assert len(ways) >= 6
        for name, way in ways.items():
            assert dataset.read_again(way, dataset.ids).shape[1:] == size, name


def test_chance_alone_seldom_warns() -> None:
    """Of many checks of right models, at most one in twenty finds some variant better."""
    random = np.random.default_rng(0)
    false_alarms, checks = 0, 2000
    for _ in range(checks):
        changed = random.integers(2, 60, 12)  # of each variant, equally often for the better and for the worse
        gained = random.binomial(changed, 0.5)
        p_values = holm([chance_of_gain(int(g), int(c - g)) for g, c in zip(gained, changed, strict=True)])
        false_alarms += min(p_values) < 0.05
    assert false_alarms / checks < 0.05
    assert chance_of_gain(0, 0) == 1.0
    assert chance_of_gain(3, 0) == 0.125
    assert chance_of_gain(900, 700) < 1e-6


def test_dead_channels_of_a_trained_network_are_no_oddity() -> None:
    norm = nn.BatchNorm2d(16, eps=1e-3, momentum=0.01)
    norm.running_var[:4], norm.running_mean[:] = 1e-9, 0.3
    model = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)).eval()
    images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    model.insert(0, nn.Conv2d(3, 16, 1))
    data = ImageDataset(images, torch.arange(8) % 2, ("a", "b"))
    assert audit_normalization(model, data).layers[0].oddities == ()


def test_distances_that_cost_nothing_do_not_accuse() -> None:
    """One sample of pictures differs from the training data; measuring the statistics anew gains nothing."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 6, 6), dtype=torch.uint8)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).eval()
    with torch.no_grad():
        before = model[0](to_unit_range(images))
        model[1].running_var.copy_(before.var(dim=(0, 2, 3)))
        model[1].running_mean.copy_(before.mean(dim=(0, 2, 3)) + 2 * model[1].running_var.sqrt())  # 2 nats
        labels = model(to_unit_range(images)).argmax(dim=1)
    if labels.unique().numel() == 1:
        labels[:2] = 1 - labels[:2]
    audit = audit_normalization(model, ImageDataset(images, labels, ("a", "b")))
    assert audit.layers[0].distance > 1
    assert {each.rule: each.status for each in judge([audit])}["A511"] == "pass"


def test_a_preparation_that_nobody_stated_is_none() -> None:
    data = ImageDataset(torch.zeros(4, 1, 5, 5, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).eval()
    audit = audit_preparation(model, data)
    assert (audit.preparation, audit.resized) == ("", False)
    assert [each.name for each in audit.variants] == [
        "in [−1, 1] in place of its own normalisation", "in [0, 255] in place of its own normalisation",
    ]  # fmt: skip
    assert Preparation().spelled == ""
