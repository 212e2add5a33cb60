"""Fixtures of the model tests.

cifar_test     the CIFAR-10 test file, decoded by hand: images uint8 (10000, 3, 32, 32) and labels, lazily by count
public_path    the public ResNet-20's checkpoint
refused        run something that must raise one of assay's errors; returns its one line
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from assay.errors import AssayError


@pytest.fixture(scope="session")
def cifar_test(shared: Path) -> Callable[[int], tuple[Tensor, Tensor]]:
    table = pq.read_table(shared / "data" / "cifar10" / "test-00000-of-00001.parquet")

    def first(n: int) -> tuple[Tensor, Tensor]:
        rows = table.slice(0, n).to_pylist()
        images = np.stack([np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))) for row in rows])
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor([row["label"] for row in rows])

    return first


@pytest.fixture(scope="session")
def public_path(shared: Path) -> Path:
    return shared / "models" / "resnet20-12fca82f.th"


@pytest.fixture
def refused() -> Callable[[Callable[[], object]], str]:
    def run(action: Callable[[], object]) -> str:
        with pytest.raises(AssayError) as caught:
            action()
        message = str(caught.value)
        assert "\n" not in message
        return message

    return run
