"""Fixtures shared by all tests.

seeded         every test starts from the same state of torch's global generator (automatic)
shared         the folder with the public CIFAR-10 and ResNet-20 (skips, saying why, where it is absent)
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command does; see assay.cli.main
import torch
from hypothesis import settings

# How long an example takes says nothing on a machine that others share; a test that hangs has pytest's timeout.
settings.register_profile("assay", deadline=None)
settings.load_profile("assay")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with ``data/cifar10`` and ``models``: $ASSAY_SHARED, else ``../shared`` beside the checkout."""
    folder = Path(os.environ.get("ASSAY_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data" / "cifar10").is_dir():
        pytest.skip(f"the public CIFAR-10 and ResNet-20 are not in {folder} (set ASSAY_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A layer made without a seed is the same layer in every run."""
    torch.manual_seed(0)
