"""Activations of the layers of a network on calibration images, and the metric of their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset, to_unit_range
from assay.lowrank.layers import can_factorize
from assay.runtime import device_of, dtype_of, generator, hooked, preserved

TEMPERATURE = 4.0  # at 1 the gradients of confident predictions vanish, and few images would count
METRIC_IMAGES = 512  # images that the metrics are estimated on
MOST_NUMBERS = 96_000_000  # of one layer's inputs and outputs; fewer images are used where they are larger


@dataclass(frozen=True, eq=False)
class Site:
    """A layer that may be replaced: its path, the shapes (without the batch) at both ends, and its FLOPs an image.

    ``metric`` F (out, out) is Σ over positions of E[ggᵀ], g = ∂ ln p(c)/∂y with c drawn from the network's own softened
    output p: eᵀFe/2 is the divergence of p that an error e of y causes, to second order (the Fisher information, with
    errors taken as independent of g and of one another, as in K-FAC: Martens & Grosse 2015).
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    flops: int
    metric: Tensor


def find_sites(model: nn.Module, calibration: ImageDataset, *, batch_size: int = 64) -> tuple[Site, ...]:
    """The layers that run exactly once a pass, in the order they run, each with the metric of its output errors."""
    layers = {name: module for name, module in model.named_modules() if can_factorize(module)}
    weights = [id(layer.weight) for layer in layers.values()]
    order: list[str] = []
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    metrics: dict[str, Tensor] = {}
    draw = generator(0x5A)
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> object:
        def hook(_: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
            order.append(name)
            shapes[name] = (tuple(args[0].shape[1:]), tuple(result.shape[1:]))
            outputs[name] = result

        return hook

    hooks = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    with hooked(*hooks), preserved(model, training=False):
        for number, batch in enumerate(calibration.batches(batch_size)):
            order.clear()
            images = to_unit_range(batch.images.to(device_of(model)), dtype_of(model)).requires_grad_()
            logits = model(images) / TEMPERATURE
            classes = torch.multinomial(logits.detach().cpu().softmax(1), 1, generator=draw)[:, 0]
            loss = F.cross_entropy(logits, classes.to(images.device), reduction="sum")
            once = [name for name in order if order.count(name) == 1]
            if not once:
                break
            gradients = torch.autograd.grad(loss, [outputs[name] for name in once], allow_unused=True)
            for name, gradient in zip(once, gradients, strict=True):
                if gradient is not None:
                    g = (gradient.movedim(1, -1) if gradient.ndim == 4 else gradient).flatten(0, -2).cpu()
                    metrics[name] = metrics.get(name, 0) + (g.T @ g).double()
            if (number + 1) * batch_size >= METRIC_IMAGES:
                break
    images_used = min(len(calibration), (number + 1) * batch_size)
    return tuple(
        Site(name, *shapes[name], flops=_flops(layers[name], shapes[name][1]), metric=metric / images_used)
        for name, metric in metrics.items()
        if weights.count(id(layers[name].weight)) == 1
    )


def capture(model: nn.Module, names: Sequence[str], calibration: ImageDataset) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and outputs of the named layers (or chains) on the calibration images, as many as memory allows."""
    captured: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in names}

    def keep(name: str) -> object:
        def hook(_: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
            inputs, results = captured[name]
            if sum(part.numel() for part in (*inputs, *results)) < MOST_NUMBERS:
                inputs.append(args[0].detach().clone())
                results.append(result.detach().clone())

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]  # type: ignore[arg-type]
    with hooked(*hooks), preserved(model, training=False), torch.no_grad():
        for batch in calibration.batches(64):
            model(to_unit_range(batch.images.to(device_of(model)), dtype_of(model)))
    return {name: (torch.cat(inputs), torch.cat(results)) for name, (inputs, results) in captured.items()}


def _flops(layer: nn.Module, outputs: tuple[int, ...]) -> int:
    """Two for a multiply–add: the layer's weights are used once at every position."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    positions = math.prod(outputs[1:] if isinstance(layer, nn.Conv2d) else outputs[:-1])
    bias = layer.weight.shape[0] if layer.bias is not None else 0
    return positions * (2 * layer.weight.numel() + bias)


def chain_flops(chain: nn.Sequential, inputs: tuple[int, ...]) -> int:
    total = 0
    with torch.no_grad():
        weight = chain[0].weight
        assert isinstance(weight, Tensor)
        x = torch.zeros(1, *inputs, dtype=weight.dtype, device=weight.device)
        for layer in chain:
            x = layer(x)
            total += _flops(layer, tuple(x.shape[1:]))
    return total
