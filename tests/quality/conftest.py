"""Pictures for the tests of duplicates.

photographs      makes independent colour pictures with the spectrum of photographs
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from assay.data.dataset import ImageDataset


def draw_photographs(n: int, *, size: int = 64, seed: int = 0) -> Tensor:
    """uint8 (n, 3, size, size): amplitudes fall as 1/f, as they do in photographs."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 3, size, size, generator=generator)
    noise = noise * 0.3 + noise.mean(dim=1, keepdim=True)
    down, across = torch.meshgrid(torch.fft.fftfreq(size), torch.fft.fftfreq(size), indexing="ij")
    frequency = (down.square() + across.square()).sqrt().clamp(min=1 / size)
    pictures = torch.fft.ifft2(torch.fft.fft2(noise) / frequency).real
    scale = pictures.flatten(1).std(dim=1)[:, None, None, None]
    return (pictures / scale * 45 + 128).clamp(0, 255).byte()


def as_set(images: Tensor, *, labels: Tensor | None = None, name: str = "made", split: str = "test") -> ImageDataset:
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    return ImageDataset(images, labels, classes=("cat", "dog"), name=name, split=split)


@pytest.fixture(scope="session")
def photographs() -> Callable[..., Tensor]:
    return draw_photographs


@pytest.fixture(scope="session")
def pictured() -> Callable[..., ImageDataset]:
    return as_set
