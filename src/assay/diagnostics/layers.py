"""Which modules a model calls, in which order, and what each returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from assay.models.probes import first_tensor
from assay.runtime.model_state import hooked


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of ``module``: the ``shape`` of its first output, and its place by the order in which calls began."""

    name: str
    module: nn.Module
    began: int
    shape: tuple[int, ...]


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[ModuleCall]]:
    """The calls of all modules inside the block, in the order in which they ended; a TorchScript program shows none."""
    calls: list[ModuleCall] = []
    began: list[int] = []
    count = 0

    def before(*_: object) -> None:
        nonlocal count
        began.append(count)
        count += 1

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            out = first_tensor(output)
            calls.append(ModuleCall(name, module, began.pop(), () if out is None else tuple(out.shape)))

        return hook

    seen = [(name, m) for name, m in model.named_modules() if not isinstance(m, torch.jit.ScriptModule)]
    handles = [
        handle
        for name, m in seen
        for handle in (m.register_forward_pre_hook(before), m.register_forward_hook(after(name)))
    ]
    with hooked(*handles):
        yield calls


def last_feature_map(calls: list[ModuleCall]) -> ModuleCall | None:
    """The last call that gives a convolutional feature map (N, C, H, W), from which on there are vectors only.

    It ends after the last convolution with more than one place, gives as many places as that, and no layer with
    parameters works on several places or tokens behind it, as those of a transformer do behind its patches.
    """
    convolutions = [i for i, call in enumerate(calls) if isinstance(call.module, nn.Conv2d) and _is_map(call.shape)]
    if not convolutions:
        return None
    first = convolutions[-1]
    places = calls[first].shape[2:]
    maps = [i for i in range(first, len(calls)) if _is_map(calls[i].shape) and calls[i].shape[2:] == places]
    behind = calls[maps[-1] + 1 :]
    if any(_has_parameters(call.module) and _is_spread(call.shape) for call in behind):
        return None
    final = [i for i in maps if all(call.module is not calls[i].module for call in calls[i + 1 :])]
    return calls[final[-1]] if final else None  # a hook sees the last call of a module


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1


def _is_spread(shape: tuple[int, ...]) -> bool:
    """Whether an output holds more than one vector a sample: a map, or tokens."""
    return len(shape) > 2 and any(size > 1 for size in shape[1:-1]) and any(size > 1 for size in shape[2:])


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def layers_by_depth(model: nn.Module, calls: list[ModuleCall]) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own, in the order of the computation.

    One that is never called itself, such as the projection inside an attention, stands with the module around it.
    """
    began: dict[str, int] = {}
    for call in calls:
        began[call.name] = min(call.began, began.get(call.name, call.began))

    def place(name: str) -> int:
        while name not in began and name:
            name = name.rpartition(".")[0]
        return began.get(name, 0)

    owners = [(name, module) for name, module in model.named_modules() if _has_parameters(module)]
    return sorted(owners, key=lambda owner: place(owner[0]))
