"""Small things to train on and to train.

blobs      120 images (1, 12, 12) of three classes that differ in where the light is
smallnet   a convolution, a norm, dropout and a linear layer, the same weights every time
recipe     six steps an epoch, SGD
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from assay.cli.main import main
from assay.data.dataset import ImageDataset
from assay.training.recipes import Recipe

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def blobs() -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    images = torch.randint(0, 80, (120, 1, 12, 12), generator=generator)
    for i, label in enumerate(labels.tolist()):
        images[i, :, 4 * label : 4 * label + 4] += 120
    return ImageDataset(images.to(torch.uint8), labels, ("top", "middle", "bottom"), name="blobs", split="train")


def make_smallnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(150, 3),
        )


@pytest.fixture
def smallnet() -> Callable[[], nn.Module]:
    return make_smallnet


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.parse(
        {
            "name": "small",
            "epochs": 3,
            "batch_size": 20,
            "optimizer": {"lr": 0.05, "weight_decay": 1e-3},
            "augment": {"padding": 1, "flip": False},
        }
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command in this process: exit code, standard output, standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["assay", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capfd.readouterr())

    monkeypatch.setenv("COLUMNS", "120")
    former = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, former)
