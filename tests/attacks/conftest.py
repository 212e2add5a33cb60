"""Fixtures for attacks: a linear model whose robustness is known in closed form, and a small convolutional one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset


class Linear(nn.Module):
    """Two classes, logits (0, ⟨w, x⟩ + b): the distance to the boundary is |⟨w, x⟩ + b| over the dual norm of w."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.b = nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(dim=1) + self.b
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def linear() -> Linear:
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3))
    return Linear(w, float(-0.5 * w.sum()))  # the boundary passes through mid-grey


@pytest.fixture
def near_grey() -> tuple[Tensor, Tensor]:
    """64 images around mid-grey, far from the bounds, and labels that the linear model predicts."""
    images = 0.5 + 0.05 * torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3))
    labels = ((images - 0.5) * w).flatten(1).sum(dim=1).gt(0).long()
    return images, labels


@pytest.fixture
def conv_net() -> nn.Module:
    """A small network with BatchNorm whose running statistics are not the initial ones."""
    torch.manual_seed(5)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, 4),
    )
    for _ in range(20):
        net(torch.rand(32, 3, 8, 8))
    return net.eval()


@pytest.fixture
def small_set(conv_net: nn.Module) -> ImageDataset:
    """48 random images with the labels that ``conv_net`` gives most of them."""
    generator = torch.Generator().manual_seed(6)
    images = torch.randint(0, 256, (48, 3, 8, 8), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        labels = conv_net(images.float() / 255).argmax(dim=1)
    labels[::12] = (labels[::12] + 1) % 4  # some are wrong before any attack
    return ImageDataset(images, labels, ("a", "b", "c", "d"), name="random", split="test")


@pytest.fixture
def fingerprint() -> Callable[[nn.Module], list[object]]:
    """Everything about a model that an attack must leave as it was."""

    def take(model: nn.Module) -> list[object]:
        state = [tensor.clone() for tensor in model.state_dict().values()]
        modes = [module.training for module in model.modules()]
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
        needs = [parameter.requires_grad for parameter in model.parameters()]
        grads = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
        return [*state, modes, hooks, needs, *grads]

    return take
