"""Gradient flow: norms of activations and gradients, layer by layer, of any image classifier."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.data.selection import evenly_spaced
from assay.diagnostics.batches import backward, example, inputs, require_gradients, square_sum
from assay.errors import ModelError
from assay.models.calls import calling
from assay.models.probes import first_tensor
from assay.records.gradients import GradientFlow, LayerGradient
from assay.runtime import hooked, uncompiled

_LAST_DIM = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
_RECTIFIERS = {"relu", "threshold", "clamp_min", "clamp", "hardtanh"}


@dataclass
class _ModuleSums:
    """Sums of own module over its calls and over all samples."""

    calls: int = 0
    elements: int = 0
    squares: float = 0.0
    gradient_elements: int = 0
    gradient_squares: float = 0.0
    non_finite_activations: int = 0
    non_finite_gradients: int = 0
    alive: Tensor | None = None
    unit_axis: int = 1


@checked
def measure_gradient_flow(
    model: nn.Module, dataset: ImageDataset, *, n: int = 256, batch_size: int = 64
) -> GradientFlow:
    """Norms of activations, of their gradients and of weight gradients, layer by layer, in evaluation mode.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: images and labels of K classes.
        n: most samples, evenly spaced over the set.
        batch_size: images in own backward pass.

    Returns:
        The record, with a row for every module that owns parameters and runs, in the order it first runs. With ℓ_i the
        cross-entropy of sample i and z the layer's output: √mean z², √mean (∂ℓ_i/∂z_i)², √(mean_i ‖∂ℓ_i/∂z_i‖²),
        ‖∂L/∂W‖₂ of L = mean ℓ_i and that over ‖W‖₂, and the share of units that a following ReLU leaves at zero for
        every sample. ``decay_per_layer`` is the factor by which the gradient changes a layer towards the input.
        Parameters of a module that is never called itself (a ``ParameterList``, the projection inside
        ``nn.MultiheadAttention``) count with the nearest enclosing module that is.

    Raises:
        ModelError: the model cannot take the images, has no layer that forward hooks reach, or cannot be
            differentiated.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=32)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> flow = assay.measure_gradient_flow(model, data)
        >>> flow.n, flow.first_non_finite, all(layer.gradient_per_sample > 0 for layer in flow.layers)
        (32, None, True)

    Reference:
        Glorot & Bengio 2010, AISTATS.
    """
    data = evenly_spaced(dataset, n)
    loss = 0.0
    with calling(model, example(data), classes=data.classes) as network, torch.enable_grad():
        batches, times = inputs(network, data, batch_size=batch_size)
        n = len(data) * times
        with _record_modules(model) as recording:
            for images, labels in batches:
                images.requires_grad_(True)
                require_gradients(model)  # each time, and again below: a model may freeze itself as it runs
                with _RectifierMode(recording):
                    logits = network(images)
                require_gradients(model)
                total = F.cross_entropy(logits, labels, reduction="sum")
                backward(total, model)
                loss += float(total.detach()) / n
        layers, unused = _collect(model, recording.modules, n=n)
        first = _first_non_finite(model, layers, recording.modules)
    if not layers:
        expected = "layers with parameters that run as modules"
        raise ModelError("model", expected=expected, got="none that forward hooks reach")
    decay = _fit_decay([layer.gradient_per_sample for layer in layers])
    return GradientFlow(
        layers=layers, n=len(data), loss=loss, decay_per_layer=decay, first_non_finite=first, unused=unused
    )


@dataclass
class _Recording:
    """All modules by name, in the order of their first calls, and the layer that ran last."""

    modules: dict[str, _ModuleSums]
    last: str | None = None


class _RectifierMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Intercepts every rectifier of the forward pass, module or function, and assigns it to the layer before it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # guarding this class against torch.compile would import its whole compiler

    def __init__(self, recording: _Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = self.recording.last
        if name is None or not isinstance(out, Tensor) or out.ndim < 2:
            return out
        operation = func.overloadpacket.__name__.rstrip("_")
        if operation in _RECTIFIERS:
            # a floor at zero: relu, relu6 (hardtanh from 0), clamp(min=0), threshold(0, 0)
            if operation == "relu" or (len(args) > 1 and args[1] == 0):
                sums = self.recording.modules[name]
                alive = (out != 0).transpose(0, sums.unit_axis).flatten(1).any(dim=1)
                fits = sums.alive is not None and sums.alive.shape == alive.shape
                sums.alive = sums.alive | alive if fits else alive  # type: ignore[operator]
            self.recording.last = None
        return out


@contextmanager
def _record_modules(model: nn.Module) -> Iterator[_Recording]:
    """Hook every module for the length of the block; ``torch.compile``d parts run eagerly meanwhile."""
    names = {
        module: name
        for name, module in model.named_modules()
        if "parametrizations" not in name.split(".") and not isinstance(module, (nn.Sequential, torch.jit.ScriptModule))
        if any(True for _ in module.parameters())
    }
    recording = _Recording({})

    def after(module: nn.Module, args: object, output: object) -> None:
        out = first_tensor(output)
        if out is None:
            return
        name = names[module]
        sums = recording.modules.setdefault(name, _ModuleSums())
        sums.calls += 1
        sums.elements += out.numel()
        sums.squares += square_sum(out)
        sums.non_finite_activations += _count_non_finite(out.detach(), sums.squares)
        if any(True for _ in module.parameters(recurse=False)) or "parametrizations" in module._modules:
            recording.last = name
            sums.unit_axis = out.ndim - 1 if isinstance(module, _LAST_DIM) else min(1, out.ndim - 1)
        if out.requires_grad:
            out.register_hook(lambda gradient: _add_gradient(sums, gradient))  # type: ignore[no-untyped-call]

    with hooked(*(module.register_forward_hook(after) for module in names)), uncompiled():
        yield recording


def _count_non_finite(value: Tensor, squares: float) -> int:
    """The number of non-finite entries; counted only where their sum of squares is not finite."""
    return 0 if math.isfinite(squares) else int((~value.isfinite()).sum())


def _add_gradient(sums: _ModuleSums, gradient: Tensor) -> None:
    sums.gradient_elements += gradient.numel()
    sums.gradient_squares += square_sum(gradient)
    sums.non_finite_gradients += _count_non_finite(gradient, sums.gradient_squares)


def _owned(
    model: nn.Module, called: dict[str, _ModuleSums]
) -> tuple[dict[str, dict[str, nn.Parameter]], tuple[str, ...]]:
    """Each parameter by the innermost enclosing module that was called; those without a gradient are unused."""
    modules = dict(model.named_modules(remove_duplicate=False))
    first = {module: name for name, module in model.named_modules()}  # a shared module goes by its first name
    owned: dict[str, dict[str, nn.Parameter]] = {}
    unused = []
    for alias, module in model.named_modules(remove_duplicate=False):
        parts = alias.split(".") if alias else []
        around = (".".join(parts[:k]) for k in range(len(parts), -1, -1))
        owner = next((name for path in around if (name := first[modules[path]]) in called), None)
        for key, parameter in module.named_parameters(recurse=False):
            path = f"{alias}.{key}" if alias else key
            if parameter.grad is None and first[module] == alias:
                unused.append(path)
            if owner is not None and (owner == first[module] or parameter.grad is not None):
                inside = path.removeprefix(f"{owner}.") if owner != first[module] else key
                owned.setdefault(owner, {})[inside] = parameter
    return owned, tuple(unused)


def _collect(
    model: nn.Module, sums: dict[str, _ModuleSums], *, n: int
) -> tuple[tuple[LayerGradient, ...], tuple[str, ...]]:
    owned, unused = _owned(model, sums)
    modules = dict(model.named_modules())
    layers = []
    for depth, (name, own) in enumerate((name, own) for name, own in sums.items() if name in owned):
        weights = list(_weights(owned[name]).values())
        norm = math.sqrt(sum(map(square_sum, weights)))
        gradients = [w.grad for w in weights if w.grad is not None]
        gradient = math.sqrt(sum(map(square_sum, gradients))) / n
        layers.append(
            LayerGradient(
                name=name or "(model)",
                type=type(modules[name]).__name__,
                depth=depth,
                parameters=sum(p.numel() for p in owned[name].values()),
                weight_norm=norm,
                weight_gradient=gradient,
                relative_gradient=gradient / norm if norm else 0.0,
                activation=math.sqrt(own.squares / max(1, own.elements)),
                activation_gradient=math.sqrt(own.gradient_squares / max(1, own.gradient_elements)),
                gradient_per_sample=math.sqrt(own.gradient_squares / n),
                dead=None if own.alive is None else 1 - float(own.alive.float().mean()),
                calls=own.calls,
                reached=bool(own.gradient_elements or gradients),
                non_finite=_count(owned[name], own),
            )
        )
    return tuple(layers), unused


def _weights(parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The matrices (and higher) of a layer; without any, what is not called a bias."""
    matrices = {name: p for name, p in parameters.items() if p.ndim > 1}
    return matrices or {name: p for name, p in parameters.items() if "bias" not in name} or parameters


def _count(parameters: dict[str, nn.Parameter], sums: _ModuleSums) -> int:
    parameters_non_finite = sum(int((~p.detach().isfinite()).sum()) for p in parameters.values())
    gradients = sum(int((~p.grad.isfinite()).sum()) for p in parameters.values() if p.grad is not None)
    return parameters_non_finite + gradients + sums.non_finite_activations + sums.non_finite_gradients


def _first_non_finite(model: nn.Module, layers: tuple[LayerGradient, ...], sums: dict[str, _ModuleSums]) -> str | None:
    """Parameters and activations in forward order come first; then gradients, which flow from the last layer back."""
    non_finite_parameters = {path for path, p in model.named_parameters() if not bool(p.detach().isfinite().all())}
    by_name = {layer.name: sums["" if layer.name == "(model)" else layer.name] for layer in layers}
    for name, own in by_name.items():
        if any(path.startswith(f"{name}.") for path in non_finite_parameters):
            return f"{name} (parameter)"
        if own.non_finite_activations:
            return f"{name} (activation)"
    for name, own in reversed(by_name.items()):
        if own.non_finite_gradients:
            return f"{name} (gradient)"
    broken = [layer.name for layer in layers if layer.non_finite]
    return f"{broken[-1]} (weight gradient)" if broken else None


def _fit_decay(norms: list[float]) -> float | None:
    """g of norm_d ∝ g^(D−d), by least squares on logarithms over the layers with a finite norm above zero."""
    points = [(d, math.log(v)) for d, v in enumerate(norms) if v > 0 and math.isfinite(v)]
    if len(points) < 2:
        return None
    mean_d = sum(d for d, _ in points) / len(points)
    mean_v = sum(v for _, v in points) / len(points)
    slope = sum((d - mean_d) * (v - mean_v) for d, v in points) / sum((d - mean_d) ** 2 for d, _ in points)
    return math.exp(-slope)
