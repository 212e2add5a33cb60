"""Fixtures of the app's tests.

linear     a subject whose distance to the boundary is known in closed form: logits (0, ⟨w, x⟩ + b), grey images
network    a subject with a small random network on 40 random colour images of 8 × 8
png        a picture file of a given size in memory
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from assay.data.dataset import ImageDataset
from assay.views.subject import Subject


class Linear(nn.Module):
    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(dim=1) + self.b
        return torch.stack([torch.zeros_like(score), score], dim=1)


def _dataset(images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> ImageDataset:
    ids = torch.arange(len(images)) * 3 + 5  # an id is not a place
    return ImageDataset(images=images, labels=labels, classes=classes, name="made", split="test", ids=ids)


@pytest.fixture
def linear() -> Subject:
    draws = torch.Generator().manual_seed(3)
    w = torch.randn(3, 4, 4, generator=draws)
    images = torch.randint(110, 146, (20, 3, 4, 4), generator=draws, dtype=torch.uint8)
    model = Linear(w, float(-0.5 * w.sum()))
    labels = model(images / 255).argmax(dim=1)
    return Subject(model, _dataset(images, labels, ("no", "yes")), words=("m.py:net", "--data", "d.npz"))


@pytest.fixture
def network() -> Subject:
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 4)
    )
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    labels = model.eval()(images / 255).argmax(dim=1)
    return Subject(
        model, _dataset(images, labels, ("cat", "dog", "<b>", "it's")), words=("net.py:build", "--data", "x")
    )


@pytest.fixture
def png() -> Callable[..., bytes]:
    def make(width: int, height: int, *, mode: str = "RGB", format: str = "PNG") -> bytes:
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, format=format)
        return buffer.getvalue()

    return make
