"""Gradient norms over the depth of any image classifier."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from assay.data.dataset import ImageDataset
from assay.data.selection import evenly_spaced
from assay.diagnostics.batches import backward, first_tensor, inputs, require_gradients
from assay.errors import ModelError
from assay.evaluate import call, check_logits
from assay.records.gradients import GradientFlow, LayerGradient
from assay.runtime import preserved

_LAST_DIM = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)


@dataclass
class _Seen:
    """What the hooks add up for one module; sums stay on the device until the end."""

    calls: int = 0
    elements: int = 0
    squares: Tensor | None = None
    gradient_elements: int = 0
    gradient_squares: Tensor | None = None
    bad_activation: int = 0
    bad_gradient: int = 0
    alive: Tensor | None = None
    order: int = field(default=-1)


def measure_gradient_flow(
    model: nn.Module, dataset: ImageDataset, *, n: int = 256, batch_size: int = 64
) -> GradientFlow:
    """Norms of activations, of their gradients and of weight gradients, layer by layer, in evaluation mode.

    For every module that owns parameters and runs, in the order it first runs: with ℓ_i the cross-entropy of sample i
    and z the layer's output, √mean z², √mean (∂ℓ_i/∂z_i)², √(mean_i ‖∂ℓ_i/∂z_i‖²), ‖∂L/∂W‖₂ of L = mean ℓ_i and that
    over ‖W‖₂, and the share of units that a following ReLU leaves at zero for every sample. Parameters of a module
    that is never called itself (a ``ParameterList``, the projection inside ``nn.MultiheadAttention``) count with the
    nearest module around it that is. The samples (at most ``n``) are spread evenly over the set. The model is left as
    found. Raises :class:`ModelError` when the model cannot take the images, has no layer that hooks can see, or
    cannot be differentiated.
    """
    data = evenly_spaced(dataset, n)
    loss = 0.0
    with preserved(model, training=False), torch.enable_grad(), _watch(model) as seen:
        require_gradients(model)
        for images, labels in inputs(model, data, batch_size=batch_size):
            images.requires_grad_(True)
            with _ReluWatch(seen):
                logits = call(model, images)
            check_logits(logits, n=len(images), classes=len(dataset.classes))
            total = F.cross_entropy(logits.float(), labels, reduction="sum") / len(data)
            backward(total)
            loss += float(total.detach())
        layers, unused = _collect(model, seen.modules, n=len(data))
        first = _first_non_finite(model, layers, seen.modules)
    if not layers:
        raise ModelError("model", expected="layers with parameters that run as modules", got="none that hooks can see")
    decay = _fit_decay([layer.gradient_per_sample for layer in layers])
    return GradientFlow(
        layers=layers, n=len(data), loss=loss, decay_per_layer=decay, first_non_finite=first, unused=unused
    )


@dataclass
class _Watch:
    """All modules by name, and the layer that ran last."""

    modules: dict[str, _Seen]
    units: dict[str, int]
    last: str | None = None
    calls: int = 0


class _ReluWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Sees every rectifier the forward pass computes, module or function, and credits it to the layer before."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = self.watch.last
        if (
            name is not None
            and func.overloadpacket.__name__ in _RECTIFIERS
            and isinstance(out, Tensor)
            and out.ndim > 1
        ):
            if _is_rectifier(func.overloadpacket.__name__, args):
                seen, axis = self.watch.modules[name], self.watch.units[name]
                alive = (out != 0).transpose(0, axis).flatten(1).any(dim=1)
                fits = seen.alive is not None and seen.alive.shape == alive.shape
                seen.alive = seen.alive | alive if fits else alive  # type: ignore[operator]
            self.watch.last = None
        return out


_RECTIFIERS = {
    "relu",
    "relu_",
    "threshold",
    "threshold_",
    "clamp_min",
    "clamp_min_",
    "clamp",
    "clamp_",
    "hardtanh",
    "hardtanh_",
}


def _is_rectifier(name: str, args: tuple[object, ...]) -> bool:
    """A floor at zero: relu, relu6 (hardtanh from 0), clamp(min=0), threshold(0, 0)."""
    return name.startswith("relu") or (len(args) > 1 and args[1] == 0)


@contextmanager
def _watch(model: nn.Module) -> Iterator[_Watch]:
    """Hook every module for the length of the block; ``torch.compile``d parts run eagerly meanwhile."""
    names = {
        module: name
        for name, module in model.named_modules()
        if "parametrizations" not in name.split(".") and not isinstance(module, (nn.Sequential, torch.jit.ScriptModule))
        if any(True for _ in module.parameters())
    }
    watch = _Watch({}, {})

    def after(module: nn.Module, args: object, output: object) -> None:
        out = first_tensor(output)
        if out is None:
            return
        name = names[module]
        seen = watch.modules.setdefault(name, _Seen(order=watch.calls))
        watch.calls += 1
        seen.calls += 1
        seen.elements += out.numel()
        seen.squares = _plus(seen.squares, _squares(out.detach()))
        seen.bad_activation += _bad(out.detach(), seen.squares)
        if any(True for _ in module.parameters(recurse=False)) or "parametrizations" in module._modules:
            watch.last = name
            watch.units[name] = out.ndim - 1 if isinstance(module, _LAST_DIM) else min(1, out.ndim - 1)
        if out.requires_grad:
            out.register_hook(lambda gradient: _add_gradient(seen, gradient))  # type: ignore[no-untyped-call]

    handles = [module.register_forward_hook(after) for module in names]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield watch
    finally:
        for handle in handles:
            handle.remove()


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def _squares(value: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(value, dtype=torch.float64)
    return norm.square()


def _bad(value: Tensor, squares: Tensor) -> int:
    """How many entries are not finite; looked for only where their sum of squares is not."""
    return 0 if bool(squares.isfinite()) else int((~value.isfinite()).sum())


def _add_gradient(seen: _Seen, gradient: Tensor) -> None:
    seen.gradient_elements += gradient.numel()
    seen.gradient_squares = _plus(seen.gradient_squares, _squares(gradient))
    seen.bad_gradient += _bad(gradient, seen.gradient_squares)


def _owned(model: nn.Module, called: dict[str, _Seen]) -> tuple[dict[str, dict[str, nn.Parameter]], tuple[str, ...]]:
    """Each parameter credited to the deepest module around it that was called; those without a gradient are unused."""
    first = {module: name for name, module in model.named_modules()}
    owned: dict[str, dict[str, nn.Parameter]] = {}
    unused = []
    for alias, module in model.named_modules(remove_duplicate=False):
        parts = alias.split(".") if alias else []
        around = (".".join(parts[:k]) for k in range(len(parts), -1, -1))
        owner = next((name for path in around if (name := _canonical(model, path, first)) in called), None)
        for key, parameter in module.named_parameters(recurse=False):
            path = f"{alias}.{key}" if alias else key
            if parameter.grad is None and first[module] == alias:
                unused.append(path)
            if owner is not None and (owner == first[module] or parameter.grad is not None):
                inside = path.removeprefix(f"{owner}.") if owner != first[module] else key
                owned.setdefault(owner, {})[inside] = parameter
    return owned, tuple(unused)


def _canonical(model: nn.Module, path: str, first: dict[nn.Module, str]) -> str:
    """A shared module goes by the first of its names."""
    return first[model.get_submodule(path)]


def _collect(model: nn.Module, seen: dict[str, _Seen], *, n: int) -> tuple[tuple[LayerGradient, ...], tuple[str, ...]]:
    owned, unused = _owned(model, seen)
    modules = dict(model.named_modules())
    layers = []
    for depth, name in enumerate(sorted(owned, key=lambda key: seen[key].order)):
        one = seen[name]
        weights = list(_weights(owned[name]).values())
        norm = math.sqrt(sum(float(w.detach().double().square().sum()) for w in weights))
        gradients = [w.grad for w in weights if w.grad is not None]
        gradient = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        squares, scale = _number(one.gradient_squares), float(n) ** 2
        layers.append(
            LayerGradient(
                name=name or "(model)",
                type=type(modules[name]).__name__,
                depth=depth,
                parameters=sum(p.numel() for p in owned[name].values()),
                weight_norm=norm,
                weight_gradient=gradient,
                relative_gradient=gradient / norm if norm else 0.0,
                activation=math.sqrt(_number(one.squares) / max(1, one.elements)),
                activation_gradient=math.sqrt(squares * scale / max(1, one.gradient_elements)),
                gradient_per_sample=math.sqrt(squares * scale / n),
                dead=None if one.alive is None else 1 - float(one.alive.double().mean()),
                calls=one.calls,
                reached=one.gradient_squares is not None or bool(gradients),
                non_finite=_count(owned[name], one),
            )
        )
    return tuple(layers), unused


def _weights(parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The matrices (and higher) of a layer; without any, what is not called a bias."""
    matrices = {name: p for name, p in parameters.items() if p.ndim > 1}
    return matrices or {name: p for name, p in parameters.items() if "bias" not in name} or parameters


def _number(total: Tensor | None) -> float:
    return 0.0 if total is None else float(total)


def _count(parameters: dict[str, nn.Parameter], seen: _Seen) -> int:
    held = sum(int((~p.detach().isfinite()).sum()) for p in parameters.values())
    gradients = sum(int((~p.grad.isfinite()).sum()) for p in parameters.values() if p.grad is not None)
    return held + gradients + seen.bad_activation + seen.bad_gradient


def _first_non_finite(model: nn.Module, layers: tuple[LayerGradient, ...], seen: dict[str, _Seen]) -> str | None:
    """Parameters and activations in forward order come first; then gradients, which flow from the last layer back."""
    held = {path for path, p in model.named_parameters() if not bool(p.detach().isfinite().all())}
    by_name = {layer.name: seen["" if layer.name == "(model)" else layer.name] for layer in layers}
    for name, one in by_name.items():
        if any(path.startswith(f"{name}.") for path in held):
            return f"{name} (parameter)"
        if one.bad_activation:
            return f"{name} (activation)"
    for name, one in reversed(by_name.items()):
        if one.bad_gradient:
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
