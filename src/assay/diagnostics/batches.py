"""Batches as a model takes them, and backward passes whose failure is one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import ModelError, one_line
from assay.runtime import device_of, dtype_of


def inputs(model: nn.Module, dataset: ImageDataset, *, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images in [0, 1] (B, C, H, W) and labels (B,), on the model's device and in its dtype."""
    device, dtype = device_of(model), dtype_of(model)
    for batch in dataset.batches(batch_size):
        yield to_unit_range(batch.images.to(device), dtype), batch.labels.to(device)


def square_sum(values: Tensor) -> float:
    """Σ v², in float64 on the CPU: half floats overflow at 256², and some devices have no float64."""
    return float(torch.linalg.vector_norm(values.detach().cpu(), dtype=torch.float64).square())


def require_gradients(model: nn.Module) -> None:
    """Set ``requires_grad`` of every floating parameter, frozen ones too; call inside ``preserved``."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.is_leaf:
            parameter.requires_grad_(True)


def backward(loss: Tensor) -> None:
    """``loss.backward()``; a loss without a gradient, or a failing backward pass, becomes one :class:`ModelError`."""
    expected = "a model whose loss can be differentiated"
    if not loss.requires_grad:
        raise ModelError("model", expected=expected, got="an output cut off from its inputs and parameters")
    with as_model_error("model", expected, RuntimeError, ValueError, TypeError):
        loss.backward()  # type: ignore[no-untyped-call]


@contextmanager
def as_model_error(where: str, expected: str, *kinds: type[Exception], named: bool = True) -> Iterator[None]:
    """Errors of these kinds become one :class:`ModelError`, which starts with the kind where it is ``named``."""
    try:
        yield
    except kinds as error:
        got = f"{type(error).__name__}: {one_line(error)}" if named else one_line(error)
        raise ModelError(where, expected=expected, got=got) from error
