"""Where two networks with the same modules drift apart: the relative error of each layer group's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import ModelError
from assay.models.calls import ModelCall, calling, rows_that_fit
from assay.records.model_comparison import LayerDifference
from assay.runtime import hooked

MOST_LAYERS = 40  # that are told apart: the outermost groups with so few are taken
LAYER_IMAGES = 128
_EXPECTED = "two networks of torch with modules of the same names"
_INNER = ("model", "program", "_orig_mod", "module")  # what wrappers call the network inside


def compare_layers(
    reference: nn.Module, candidate: nn.Module, dataset: ImageDataset
) -> tuple[tuple[LayerDifference, ...], int]:
    """The relative error ‖a − b‖/‖a‖ of each layer group's outputs over ``dataset``, in the order they run.

    Layers correspond by name, and only where their outputs have the same shape. Activations of one batch are held at a
    time. Also returns the number of images. Raises :class:`ModelError` where no layers correspond, with the reason.
    """
    modules = pair_modules(reference, candidate)
    example = to_unit_range(dataset.images[:2])
    sums = _Sums(modules)
    with (
        torch.no_grad(),
        calling(reference, example, classes=dataset.classes) as first,
        calling(candidate, example, classes=dataset.classes) as second,
    ):
        size = rows_that_fit(dataset.shape, most=32, gradients=True)
        for rows in _batches(first, second, dataset, size=size):
            images = to_unit_range(dataset.images[rows])
            with hooked(*sums.listen(0)):
                first(images.to(first.device))
            with hooked(*sums.listen(1)):
                second(images.to(second.device))
            sums.add()
    layers = tuple(sums.results())
    if not layers:
        got = "none whose output can be read in both (a compiled network runs as one program)"
        raise ModelError("modules", expected=_EXPECTED, got=got)
    return layers, len(dataset)


def pair_modules(reference: nn.Module, candidate: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Modules of both by their common names, at most :data:`MOST_LAYERS` groups, none inside another.

    Wrappers around either network are looked through. Raises :class:`ModelError` where there are none.
    """
    first, second = _unwrapped(reference), _unwrapped(candidate)
    if any(isinstance(module, torch.jit.ScriptModule) for each in (first, second) for module in each.modules()):
        raise ModelError("modules", expected=_EXPECTED, got="a TorchScript program, whose modules take no hooks")
    pairs = [(first, other) for other in _inner(second)] + [(other, second) for other in _inner(first)]
    modules = max((_common(*pair) for pair in pairs), key=len)  # the first of equal ones: the outermost
    if not modules:
        got = " and ".join(f"{type(each).__name__} ({_few(each)})" for each in (first, second))
        raise ModelError("modules", expected=_EXPECTED, got=got)
    deepest = max(_depth(name, modules) for name in modules)
    chosen: dict[str, tuple[nn.Module, nn.Module]] = {}
    for depth in range(deepest + 1):
        groups = {
            name: pair
            for name, pair in modules.items()
            if _depth(name, modules) == depth or (_depth(name, modules) < depth and not _has_inner(name, modules))
        }
        if chosen and len(groups) > MOST_LAYERS:
            break
        chosen = groups
    return chosen


def _unwrapped(model: nn.Module) -> nn.Module:
    """The network behind wrappers of ours, ``torch.compile`` and ``DataParallel``."""
    while True:
        ours = type(model).__module__.startswith(("assay.", "torch."))
        inner = next((getattr(model, name) for name in _INNER if isinstance(getattr(model, name, None), nn.Module)), 0)
        if not ours or not isinstance(inner, nn.Module):
            return model
        model = inner


def _inner(model: nn.Module) -> Iterable[nn.Module]:
    """``model`` and the networks that a user's wrapper may hold it in, two levels down."""
    return [model] + [m for name, m in model.named_modules() if name and name.count(".") < 2 and any(m.children())]


def _common(one: nn.Module, other: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    named = dict(other.named_modules())
    pairs = {name: (module, named[name]) for name, module in one.named_modules() if name and name in named}
    return {name: pair for name, pair in pairs.items() if not any(_only_holds(module) for module in pair)}


def _only_holds(module: nn.Module) -> bool:
    """Whether it is never called itself, as lists of modules are."""
    return isinstance(module, nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict)


def _depth(name: str, modules: Mapping[str, object]) -> int:
    """How many of the others it is part of."""
    parts = name.split(".")
    return sum(".".join(parts[:length]) in modules for length in range(1, len(parts)))


def _has_inner(name: str, modules: Mapping[str, object]) -> bool:
    return any(other.startswith(f"{name}.") for other in modules)


def _few(module: nn.Module) -> str:
    names = [name for name, _ in module.named_children()]
    return ", ".join(names[:3]) + ", …" * (len(names) > 3) or "none"


def _batches(first: ModelCall, second: ModelCall, dataset: ImageDataset, *, size: int) -> list[Tensor]:
    """Rows that both take whole, so that hooks see the same rows in both. Raises :class:`ModelError` without any."""

    def load(rows: Tensor) -> Tensor:
        return to_unit_range(dataset.images[rows])

    batches, _ = first.batches(len(dataset), size=size, load=load)
    if _takes(second, batches):
        return batches
    batches, _ = second.batches(len(dataset), size=size, load=load)
    if not _takes(first, batches):
        raise ModelError("modules", expected="networks that take batches of the same size", got="none that both take")
    return batches


def _takes(network: ModelCall, batches: Iterable[Tensor]) -> bool:
    return all(network.smallest <= len(rows) <= (network.largest or len(rows)) for rows in batches)


class _Sums:
    """Σ ‖a − b‖² and Σ ‖a‖² of each pair of modules, over the batches that were added."""

    def __init__(self, modules: Mapping[str, tuple[nn.Module, nn.Module]]) -> None:
        self.modules = modules
        self.order: list[str] = []  # in which they first ran
        self.squares: dict[str, tuple[float, float]] = {}
        self.left_out: set[str] = set()
        self.outputs: tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]] = ({}, {})

    def listen(self, side: int) -> list[Any]:
        """Hooks that hold the outputs of one network in this batch."""
        return [pair[side].register_forward_hook(self._hook(side, name)) for name, pair in self.modules.items()]

    def _hook(self, side: int, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hold(_module: nn.Module, _inputs: Any, output: Any) -> None:
            value = _tensor(output)
            if name not in self.order:
                self.order.append(name)
            if value is not None:  # a copy: an activation that works in place writes over it
                self.outputs[side].setdefault(name, []).append(value.detach().to("cpu", copy=True))

        return hold

    def add(self) -> None:
        """Count the outputs of a batch, and let them go."""
        for name in self.modules:
            before, after = (held.get(name, []) for held in self.outputs)
            if not before or [a.shape for a in before] != [b.shape for b in after]:
                self.left_out.add(name)
                continue
            apart, size = self.squares.get(name, (0.0, 0.0))
            for a, b in zip(before, after, strict=True):
                apart += float((a.double() - b.double()).square().sum())
                size += float(a.double().square().sum())
            self.squares[name] = (apart, size)
        self.outputs = ({}, {})

    def results(self) -> Iterable[LayerDifference]:
        for name in self.order:
            if name in self.squares and name not in self.left_out:
                apart, size = self.squares[name]
                error = 0.0 if apart == 0 else (apart / size) ** 0.5 if size > 0 else float("inf")
                types = dict.fromkeys(type(module).__name__ for module in self.modules[name])
                yield LayerDifference(name=name, type=" → ".join(types), relative_error=error)


def _tensor(output: Any) -> Tensor | None:
    """The first floating tensor in what a module returned; of a quantised one its values."""
    if isinstance(output, Tensor):
        if output.is_quantized:
            return output.dequantize()
        return output if output.is_floating_point() else None
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((tensor for part in parts if (tensor := _tensor(part)) is not None), None)
