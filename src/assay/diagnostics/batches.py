"""Batches as a model takes them whole, and backward passes whose failure is one clear error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import ModelError
from assay.models.calls import ModelCall, refusing


def example(dataset: ImageDataset) -> Tensor:
    """The first two images in [0, 1], on which a model is tried out."""
    return to_unit_range(dataset.images[:2])


def inputs(
    network: ModelCall, dataset: ImageDataset, *, batch_size: int
) -> tuple[Iterator[tuple[Tensor, Tensor]], int]:
    """Images in [0, 1] (B, C, H, W) and labels (B,) on the model's device, and how often each sample occurs.

    ``network`` neither fills up nor splits these batches, so hooks see them as they are; every sample occurs equally
    often, once but for a model that refuses such batches, so that a mean over rows is the mean over samples.
    """
    n, gradients = len(dataset), torch.is_grad_enabled()
    size = network.rows_that_fit(dataset.shape, most=batch_size, gradients=gradients)

    def load(rows: Tensor) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(network.dtype, torch.float32)
        return to_unit_range(dataset.images[rows].to(network.device), dtype), dataset.labels[rows].to(network.device)

    batches, times = network.batches(n, size=size, load=lambda rows: load(rows)[0])
    return (load(rows) for rows in batches), times


def which_right(
    network: ModelCall,
    dataset: ImageDataset,
    *,
    batch_size: int,
    convert: Callable[[Tensor], Tensor] = lambda images: images,
) -> Tensor:
    """Which samples are classified rightly, bool (N,) on the CPU, on images in [0, 1] that ``convert`` changes.

    None of a model that fails on what it makes of them, nor one whose logits are not finite.
    """
    size = network.rows_that_fit(dataset.shape, most=batch_size, gradients=torch.is_grad_enabled())
    dtype, results = torch.promote_types(network.dtype, torch.float32), []
    try:
        for batch in dataset.batches(size):
            logits = network(convert(to_unit_range(batch.images.to(network.device), dtype)))
            right = (logits.argmax(dim=1) == batch.labels.to(logits.device)) & logits.isfinite().all(dim=1)
            results.append(right.cpu())
    except ModelError:
        return torch.zeros(len(dataset), dtype=torch.bool)
    return torch.cat(results)


def square_sum(values: Tensor) -> float:
    """Σ v², in float64 on the CPU: half floats overflow at 256², and some devices have no float64."""
    return float(torch.linalg.vector_norm(values.detach().cpu(), dtype=torch.float64).square())


def require_gradients(model: nn.Module) -> None:
    """Set ``requires_grad`` of every floating parameter, frozen ones too; call inside ``preserved``."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.is_leaf:
            parameter.requires_grad_(True)


def backward(loss: Tensor, model: nn.Module) -> None:
    """``loss.backward()``; a loss without a gradient, or a failing backward pass, becomes one :class:`ModelError`."""
    expected = "a model whose loss can be differentiated"
    if not loss.requires_grad:
        raise ModelError("model", expected=expected, got="an output cut off from its inputs and parameters")
    with refusing(model, expected=expected, where="model"):
        loss.backward()  # type: ignore[no-untyped-call]
