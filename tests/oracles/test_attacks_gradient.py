"""FGSM and PGD against torchattacks and against six naive lines, on the public ResNet-20."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks.engine import attack
from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods.gradient import FGSM, PGD
from assay.data.dataset import ImageDataset
from assay.data.sources import load_dataset
from assay.models.sources import load_model

N = 64


@pytest.fixture(scope="module")
def resnet(shared: Path) -> nn.Module:
    return load_model("resnet20", weights=shared / "models" / "resnet20-12fca82f.th").eval()


@pytest.fixture(scope="module")
def images(shared: Path) -> ImageDataset:
    return load_dataset(str(shared / "data" / "cifar10"), limit=N)


def naive_pgd(model: nn.Module, x: Tensor, y: Tensor, *, epsilon: float, step: float, steps: int) -> Tensor:
    adversarial = x.clone()
    for _ in range(steps):
        adversarial.requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(model(adversarial), y, reduction="sum"), adversarial)[0]
        adversarial = adversarial.detach() + step * gradient.sign()
        adversarial = torch.max(torch.min(adversarial, x + epsilon), x - epsilon).clamp(0, 1)
    return adversarial


def test_one_step_equals_torchattacks(resnet, images):
    torchattacks = pytest.importorskip("torchattacks")
    x, y = images.images.float() / 255, images.labels
    theirs = torchattacks.FGSM(resnet, eps=8 / 255)(x, y)
    ours = attack(resnet, x, y, precision="float32", attack=FGSM(), epsilon=8 / 255)
    same = ours.broken
    assert same.sum() > 30
    # A gradient of nearly zero may take either sign; all the other pixels agree.
    assert ((ours.adversarial - theirs)[same].abs() > 1e-6).float().mean() < 2e-3
    with torch.no_grad():
        right = resnet(theirs).argmax(dim=1) == y
    assert (right == ours.robust).float().mean() >= 1 - 1 / N


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_many_steps_agree_with_torchattacks(resnet, images, norm):
    torchattacks = pytest.importorskip("torchattacks")
    x, y = images.images.float() / 255, images.labels
    if norm == "linf":
        epsilon, step = 1 / 255, 0.25 / 255
        peer = torchattacks.PGD(resnet, eps=epsilon, alpha=step, steps=5, random_start=False)
    else:
        epsilon, step = 0.1, 0.03
        peer = torchattacks.PGDL2(resnet, eps=epsilon, alpha=step, steps=5, random_start=False)
    theirs = peer(x, y)
    ours = attack(
        resnet,
        x,
        y,
        precision="float32",
        attack=PGD(steps=5, step_size=step, random_start=False),
        norm=norm,
        epsilon=epsilon,
    )
    with torch.no_grad():
        right = resnet(theirs).argmax(dim=1) == y
    assert 5 < int(right.sum()) < 60
    # Whoever is broken after the last of their steps was broken on the way of ours, which are the same steps.
    assert int((ours.robust & ~right).sum()) <= 1
    assert int(right.sum()) - int(ours.robust.sum()) <= 3


def test_one_step_record_lies_in_the_interval_of_a_naive_reference(resnet, images):
    record = measure_robust_accuracy(resnet, images, attack="fgsm", epsilon=8 / 255).record
    x, y = images.images.float() / 255, images.labels
    naive = naive_pgd(resnet, x, y, epsilon=8 / 255, step=8 / 255, steps=1)
    with torch.no_grad():
        accuracy = float((resnet(naive).argmax(dim=1) == y).float().mean())
    assert record.low <= accuracy <= record.high
    assert record.n == N


def test_broken_samples_leave_without_weakening_the_attack(resnet, images):
    x, y = images.images.float() / 255, images.labels
    naive = naive_pgd(resnet, x, y, epsilon=2 / 255, step=0.5 / 255, steps=8)
    with torch.no_grad():
        right = resnet(naive).argmax(dim=1) == y
    ours = attack(
        resnet, x, y, precision="float32", attack=PGD(steps=8, step_size=0.5 / 255, random_start=False), epsilon=2 / 255
    )
    assert int((ours.robust & ~right).sum()) == 0
