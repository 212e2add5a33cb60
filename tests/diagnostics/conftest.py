"""Fixtures of the diagnostics tests.

images         48 random 3×8×8 pictures of 4 classes
untouched      a context manager that fails when a model is not left exactly as it was found
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import nn

from assay.data.dataset import ImageDataset
from assay.runtime import generator


@pytest.fixture
def images() -> ImageDataset:
    draws = generator(3)
    return ImageDataset(
        images=torch.randint(0, 256, (48, 3, 8, 8), generator=draws, dtype=torch.uint8),
        labels=torch.arange(48) % 4,
        classes=("ant", "bee", "cat", "dog"),
    )


def _state(model: nn.Module) -> dict[str, object]:
    return {
        "modes": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        "values": [t.clone() for t in (*model.parameters(), *model.buffers())],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), len(m._backward_pre_hooks))
            for m in model.modules()
        ],
        "random": torch.get_rng_state(),
    }


@pytest.fixture
def untouched() -> Callable[[nn.Module], AbstractContextManager[None]]:
    @contextmanager
    def check(model: nn.Module) -> Iterator[None]:
        before = _state(model)
        yield
        after = _state(model)
        for key, old in before.items():
            assert _same(old, after[key]), f"{key} changed"

    return check


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(_same, a, b))
    return a == b
