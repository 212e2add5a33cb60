"""Activations of the layers of a network on calibration images, and the metric of their errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.compression.replaceable import layers_with_matrices, refuse_replacement, shared_layers, why_not
from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import ModelError
from assay.models.calls import ModelCall, calling, refusing
from assay.runtime import generator, hooked

TEMPERATURE = 4.0  # at 1 the gradients of confident predictions vanish, and few images would count
METRIC_IMAGES = 512  # images that the metrics are estimated on
MOST_NUMBERS = 96_000_000  # of one layer's inputs and outputs; fewer images are used where they are larger


@dataclass(frozen=True, eq=False)
class Site:
    """A layer that may be replaced: its path, the shapes (without the batch) at both ends, and its FLOPs an image.

    ``metric`` F (out, out) is Σ over positions of E[ggᵀ], g = ∂ ln p(c)/∂y with c drawn from the network's own softened
    output p: eᵀFe/2 is the divergence of p that an error e of y causes, to second order (the Fisher information, with
    errors taken as independent of g and of one another, as in K-FAC: Martens & Grosse 2015). ``rows`` of the layer's
    batch belong to one image: more than one where the network folds positions into it.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    flops: int
    metric: Tensor
    rows: int = 1


@dataclass(eq=False)
class _Calls:
    """How one layer was called in the passes so far: the most times in a pass, and the shapes for one image."""

    times: int = 0
    shapes: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = field(default_factory=set)
    output: Tensor | None = None
    metric: Tensor | None = None

    @property
    def fault(self) -> str:
        if self.times != 1:
            return "the network never calls it" if self.times == 0 else f"the network calls it {self.times} times"
        if len(self.shapes) != 1 or next(iter(self.shapes))[0] == 0:
            return "its batch is not that of the images"
        return "" if self.metric is not None else "no gradient of the output reaches it"


def find_sites(
    model: nn.Module, calibration: ImageDataset, *, batch_size: int = 64, left_out: dict[str, str] | None = None
) -> tuple[Site, ...]:
    """The layers that run exactly once a pass, in the order they run, each with the metric of its output errors.

    ``left_out`` receives the path of every other linear or convolutional layer, with the reason.
    """
    first = _pictures(calibration, torch.arange(min(2, len(calibration))))
    with calling(model, first, classes=calibration.classes) as network:
        layers = layers_with_matrices(model)  # a lazy layer is known by now
        refused = {name: reason for name, layer in layers.items() if (reason := why_not(layer))}
        refused = shared_layers(model) | refused
        calls, order = _observe(model, network, calibration, set(layers) - set(refused), batch_size=batch_size)
    refused |= {name: each.fault for name, each in calls.items() if each.fault}
    names = [name for name in order if name not in refused]
    if names:
        refused |= refuse_replacement(model, names, first)
    if left_out is not None:
        left_out.update({name: refused[name] for name in layers if name in refused})
    sites = []
    for name in names:
        if name not in refused:
            metric = calls[name].metric
            assert metric is not None
            rows, inputs, outputs = next(iter(calls[name].shapes))
            flops = rows * _flops(layers[name], outputs)
            sites.append(Site(name, inputs, outputs, flops=flops, metric=metric, rows=rows))
    return tuple(sites)


def _observe(
    model: nn.Module, network: ModelCall, calibration: ImageDataset, names: set[str], *, batch_size: int
) -> tuple[dict[str, _Calls], list[str]]:
    """How the named layers are called, each with its metric, and the order in which they run."""
    calls = {name: _Calls() for name in names}
    order: list[str] = []
    outputs: dict[str, Tensor] = {}
    draw = generator(0x5A)
    n = min(METRIC_IMAGES, len(calibration))
    size, load = (
        network.rows_that_fit(calibration.shape, most=batch_size, gradients=True),
        partial(_pictures, calibration),
    )
    batches, times = network.batches(n, size=size, load=load)

    def start(*_: object) -> None:
        order.clear()

    def record(name: str) -> object:
        def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], result: Tensor) -> Tensor:
            order.append(name)
            # The network goes on with a copy: it may write over the output, as an in-place ReLU does.
            outputs[name] = result if result.requires_grad else result.detach().requires_grad_()
            x = _input(args, kwargs)
            batched = x.ndim == 4 if isinstance(module, nn.Conv2d) else x.ndim > 1
            share = x.shape[0] // len(rows) if batched and x.shape[0] % len(rows) == 0 else 0
            calls[name].shapes.add((share, tuple(x.shape[1:]), tuple(result.shape[1:])))
            return outputs[name].clone()

        return hook

    layers = [model.get_submodule(name).register_forward_hook(record(name), with_kwargs=True) for name in names]  # type: ignore[arg-type]
    unchanged = torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.detach().clone(), lambda saved: saved)
    with hooked(model.register_forward_pre_hook(start), *layers), unchanged:  # what is saved may be written over
        model.requires_grad_(False)  # gradients of activations need no weight's, and keep fewer inputs
        for rows in batches:
            images = _pictures(calibration, rows).to(network.device).requires_grad_()
            logits = network(images) / TEMPERATURE
            if not bool(logits.isfinite().all()):
                raise ModelError("model output", expected="finite logits", got="NaN or infinity")
            classes = torch.multinomial(logits.detach().float().cpu().softmax(1), 1, generator=draw)[:, 0]
            loss = F.cross_entropy(logits, classes.to(logits.device), reduction="sum")
            ran = list(dict.fromkeys(order))
            for name, count in Counter(order).items():
                calls[name].times = max(calls[name].times, count)
            once = [name for name in ran if calls[name].times == 1]
            if not once or not loss.requires_grad:
                continue
            with refusing(model, images.shape, expected="a model with gradients", where="gradients of the model"):
                gradients = torch.autograd.grad(loss, [outputs[name] for name in once], allow_unused=True)
            for name, gradient in zip(once, gradients, strict=True):
                if gradient is not None:
                    convolution = isinstance(model.get_submodule(name), nn.Conv2d)
                    g = (gradient.movedim(1, -1) if convolution else gradient).flatten(0, -2).float().cpu()
                    earlier = calls[name].metric
                    calls[name].metric = (0 if earlier is None else earlier) + (g.T @ g).double() / (n * times)
    return calls, ran


def _pictures(dataset: ImageDataset, rows: Tensor) -> Tensor:
    return to_unit_range(dataset.images[rows])


def _input(args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Tensor:
    return args[0] if args else kwargs["input"]


def capture(model: nn.Module, names: Sequence[str], calibration: ImageDataset) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and outputs of the named layers (or chains) on the calibration images, as many as memory allows.

    float32 on the CPU, whatever the model has: sums of half-precision products would lose their digits.
    """
    captured: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in names}

    def keep(name: str) -> object:
        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], result: Tensor) -> None:
            inputs, results = captured[name]
            if sum(part.numel() for part in (*inputs, *results)) < MOST_NUMBERS:
                inputs.append(_own(_input(args, kwargs)))
                results.append(_own(result))

        return hook

    with calling(model, _pictures(calibration, torch.arange(min(2, len(calibration))))) as network, torch.no_grad():
        size, load = network.rows_that_fit(calibration.shape, most=64), partial(_pictures, calibration)
        batches, _ = network.batches(len(calibration), size=size, load=load)
        hooks = [model.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True) for name in names]  # type: ignore[arg-type]
        with hooked(*hooks):
            for rows in batches:
                network(_pictures(calibration, rows))
    return {name: (torch.cat(inputs), torch.cat(results)) for name, (inputs, results) in captured.items()}


def _own(values: Tensor) -> Tensor:
    """A copy that nothing writes over, float32 on the CPU."""
    return values.detach().to("cpu", torch.float32, copy=True)


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
