from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from assay.data.dataset import ImageDataset
from assay.diagnostics import batchnorm
from assay.diagnostics.batchnorm import audit_normalization
from assay.records.configuration import NormalizationAudit
from assay.report.sections.configuration import normalization_section


def model_with(mean: float, variance: float, **options) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3, affine=False, **options), nn.Flatten(), nn.Linear(192, 4))
    model[0].running_mean.fill_(mean)
    model[0].running_var.fill_(variance)
    return model


def test_the_distance_is_the_symmetric_divergence_of_two_normals(images) -> None:
    x = images.images.double() / 255
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    audit = audit_normalization(model_with(0.1, 0.5), images)
    (layer,) = audit.layers
    ours, data = (
        torch.distributions.Normal(m, v.sqrt())
        for m, v in ((torch.full((3,), 0.1).double(), torch.full((3,), 0.5).double() + 1e-5), (mean, variance + 1e-5))
    )
    kl = torch.distributions.kl_divergence
    assert layer.distance == pytest.approx(float(0.5 * (kl(ours, data) + kl(data, ours)).mean()), rel=1e-5)
    assert layer.mean_shift == pytest.approx(float(((mean - 0.1).square() / (0.5 + 1e-5)).mean().sqrt()), rel=1e-5)
    fitting = model_with(0.0, 1.0)
    fitting[0].running_mean.copy_(mean)
    fitting[0].running_var.copy_(variance)
    assert audit_normalization(fitting, images).layers[0].distance < 1e-6


def test_reestimation_is_measured_and_undone(images, untouched) -> None:
    """A network whose statistics were right, then spoilt: measuring them anew brings the accuracy back."""
    torch.manual_seed(0)
    good = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4)
    ).train()
    optimizer = torch.optim.Adam(good.parameters(), lr=1e-2)
    x, y = images.images.float() / 255, images.labels
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(good(x), y).backward()
        optimizer.step()
    good.zero_grad()
    good[1].running_mean.add_(3.0)
    good[1].running_var.mul_(50.0)
    with untouched(good):
        audit = audit_normalization(good, images, batch_size=48)
    assert audit.before.accuracy < 0.6
    assert audit.reestimated.accuracy > 0.95
    assert audit.layers[0].distance > 1
    assert NormalizationAudit.model_validate_json(audit.model_dump_json()) == audit


def test_oddities_are_named(images) -> None:
    layer = audit_normalization(model_with(0.0, 1e-6, momentum=0.9, eps=0.1), images).layers[0]
    assert layer.batches_tracked == 0
    oddities = " ".join(layer.oddities)
    assert "never updated" not in oddities  # as in checkpoints older than the counter
    fresh = audit_normalization(model_with(0.0, 1.0), images).layers[0]
    assert fresh.oddities == ("statistics never updated (mean 0 and variance 1, as initialised)",)
    for part in ("momentum 0.9", "eps 0.1", "100 % of channels have a running variance near eps"):
        assert part in oddities
    for variance, eps in ((1.0, 1e-5), (5e-3, 1e-3)):  # the second: depthwise layers of a right EfficientNet
        ordinary = model_with(0.0, variance, eps=eps)
        ordinary[0].num_batches_tracked.fill_(7)
        assert audit_normalization(ordinary, images).layers[0].oddities == ()


@pytest.mark.parametrize(
    ("expects", "convention"),
    [
        (lambda x: x * 255, "in [0, 255]"),
        (lambda x: 2 * x - 1, "in [−1, 1]"),
        (lambda x: x.flip(1), "channels reversed (BGR)"),
    ],
    ids=["bytes", "signed", "bgr"],
)
def test_the_input_scale_a_model_was_made_for_is_found(expects, convention: str) -> None:
    """The class is which of four levels the first channel has; the model answers by distance, in its own units."""
    levels = torch.tensor([20, 90, 160, 240], dtype=torch.uint8)
    labels = torch.arange(40) % 4
    images = torch.randint(0, 256, (40, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, 0] = levels[labels][:, None, None]
    data = ImageDataset(images, labels, ("a", "b", "c", "d"))
    centres = expects(levels.float().view(4, 1, 1, 1).expand(4, 3, 1, 1) / 255)[
        :, 0 if convention[0] != "c" else 2, 0, 0
    ]

    class Nearest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            level = x[:, 2 if convention[0] == "c" else 0].mean(dim=(1, 2))
            return -(level[:, None] - centres[None]).abs()

    accuracies = {c.convention: c.accuracy for c in audit_normalization(Nearest(), data).conventions}
    assert accuracies[convention] == 1.0
    assert accuracies["as is"] < 0.6


def test_a_model_without_such_layers_says_so(images) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    audit = audit_normalization(model, images)
    assert audit.layers == ()
    assert audit.reestimated is None
    x = images.images.double().flatten(1) / 255
    assert audit.stem == "1"
    assert audit.stem_mean == pytest.approx(float(x.mean()), rel=1e-6)
    assert math.isclose(audit.stem_std, float(x.std(correction=0)), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("smallest", "largest", "n", "reason"),
    [(8, 8, 12, "batches of 8 only"), (4, 99, 3, "too small"), (1, 99, 1, "two samples or more, got 1")],
)
def test_statistics_that_cannot_be_measured_anew_are_told_beside_what_was_measured(
    images, smallest: int, largest: int, n: int, reason: str
) -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model_with(0.5, 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not smallest <= len(x) <= largest:
                raise RuntimeError("the batch is too small or too large")
            return self.inner(x)

    audit = audit_normalization(Choosy().eval(), images, n=n)
    assert audit.n == n == audit.before.n and len(audit.layers) == 1
    assert audit.reestimated is None
    assert reason in audit.not_reestimated
    assert reason in normalization_section(audit).summary


def test_statistics_of_large_images_are_measured_on_enough_of_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    measure = batchnorm.measure_running_statistics

    def watched(*arguments: Any, batch_size: int, **more: Any) -> Any:
        asked.append(batch_size)
        return measure(*arguments, batch_size=batch_size, **more)

    monkeypatch.setattr(batchnorm, "measure_running_statistics", watched)
    layers = (nn.Conv2d(3, 96, 3, stride=2, padding=1), nn.BatchNorm2d(96), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(96, 2)).eval()  # 4.8 MB an image after the first layer
    images = torch.zeros(60, 3, 224, 224, dtype=torch.uint8)
    audit_normalization(model, ImageDataset(images, torch.arange(60) % 2, ("a", "b")))
    assert 40 <= asked[0] < 60
