"""A block that leaves a model, and the random numbers of the process, as it found them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

Restore = Callable[[], bool]  # puts one value back; whether it had changed

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}  # parameters, buffers, children and hooks of any module
_OPAQUE = (nn.Module, FunctionType, MethodType, BuiltinFunctionType, ModuleType, type, torch.Generator)
_DEPTH = 4  # of containers and objects inside an attribute
_LARGEST = 2**26  # bytes of an array in an attribute that are copied: what is larger is data, not a cache


@contextmanager
def preserved(model: nn.Module, *, training: bool | None = None) -> Iterator[nn.Module]:
    """Run a block, then put back what running a model may change.

    That is every module's mode and plain attributes (caches, states, counters), every ``requires_grad`` and ``.grad``,
    every buffer, and the global random state of torch, NumPy and Python, so that measuring never changes what a user's
    program draws next. ``training`` sets the mode inside the block (False: evaluation; None: as found).
    """
    state = ModelState(model)
    gradients = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    random_state = _random_state(model)
    if training is not None:
        model.train(training)
    for parameter, _, _ in gradients:
        parameter.grad = None
    try:
        yield model
    finally:
        for parameter, needs_gradient, gradient in gradients:
            if parameter.requires_grad != needs_gradient:  # setting it, even to its own value, fails on a lazy one
                parameter.requires_grad_(needs_gradient)
            parameter.grad = gradient
        state.restore()
        random_state()


@contextmanager
def hooked(*handles: RemovableHandle) -> Iterator[None]:
    """Remove the hooks when the block ends, however it ends."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


class ModelState:
    """Modes, buffers and plain attributes of all modules, with the contents of caches, to be put back any time."""

    def __init__(self, model: nn.Module, *, buffers: bool = True) -> None:
        memo: set[int] = set()
        self._restores: list[Restore] = []
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule):  # its attributes are out of Python's reach
                self._restores.append(_remember_mode(module))
            else:
                self._restores.append(_remember_mapping(vars(module), _is_plain))
                for name, value in vars(module).items():
                    if _is_plain(name):
                        self._restores += _remember(value, memo, _DEPTH)
            if buffers and not any(is_lazy(buffer) for buffer in module._buffers.values() if buffer is not None):
                if not isinstance(module, torch.jit.ScriptModule):
                    self._restores.append(_remember_mapping(module._buffers, lambda _: True))
                self._restores += [remember_tensor(b) for _, b in module._buffers.items() if b is not None]

    def restore(self) -> bool:
        """Put everything back; whether anything had changed."""
        changes = [restore() for restore in self._restores]
        return any(changes)


def _is_plain(name: str) -> bool:
    return name not in _OF_TORCH


def _remember_mode(module: nn.Module) -> Restore:
    mode = module.training

    def restore() -> bool:
        changed = module.training != mode
        module.training = mode
        return changed

    return restore


def _remember_mapping(mapping: dict[str, Any], concerns: Callable[[str], bool]) -> Restore:
    """The values under the names that it ``concerns``, by identity."""
    known = {name: value for name, value in mapping.items() if concerns(name)}

    def restore() -> bool:
        now = {name: value for name, value in mapping.items() if concerns(name)}
        if now.keys() == known.keys() and all(now[name] is known[name] for name in known):
            return False
        for name in now.keys() - known.keys():
            del mapping[name]
        mapping.update(known)
        return True

    return restore


def _remember(value: Any, memo: set[int], depth: int) -> list[Restore]:
    """How to put back the contents of ``value`` and of what it holds; nothing for what cannot change."""
    if depth == 0 or id(value) in memo or isinstance(value, (*_OPAQUE, str, bytes, int, float, complex)):
        return []
    if value is None or (isinstance(value, Tensor) and is_lazy(value)):
        return []
    if isinstance(value, (Tensor, np.ndarray)) and value.nbytes > _LARGEST:
        return []
    memo.add(id(value))
    inside: list[Any] = []
    restores: list[Restore] = []
    if isinstance(value, Tensor):
        restores.append(remember_tensor(value))
    elif isinstance(value, np.ndarray):
        restores.append(_remember_array(value))
    elif isinstance(value, (list, set, dict, deque)):
        inside = list(value.values()) if isinstance(value, dict) else list(value)
        restores.append(_remember_container(value))
    elif isinstance(value, tuple):
        inside = list(value)
    elif isinstance(getattr(value, "__dict__", None), dict):
        inside = list(vars(value).values())
        restores.append(_remember_mapping(vars(value), lambda _: True))
    return restores + [restore for each in inside for restore in _remember(each, memo, depth - 1)]


def remember_tensor(tensor: Tensor) -> Restore:
    """How to put back its values."""
    known = tensor.detach().clone()

    def restore() -> bool:
        if _equal(tensor.detach(), known):
            return False
        with torch.no_grad():
            if tensor.shape == known.shape and tensor.layout == torch.strided and _is_dense(tensor):
                tensor.copy_(known)
            else:  # of another shape by now, or one whose entries share memory
                tensor.data = known.clone()
        return True

    return restore


def _is_dense(tensor: Tensor) -> bool:
    """Whether no two entries lie at one address, as those of an expanded tensor do."""
    return all(size == 1 or stride > 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _equal(a: Tensor, b: Tensor) -> bool:
    """Of the same shape and values; NaN equals NaN."""
    if a.shape != b.shape or a.layout != b.layout:
        return False
    if a.is_meta or a.is_quantized:
        return a.is_meta or torch.equal(a.int_repr(), b.int_repr())
    if a.layout != torch.strided:
        a, b = a.to_dense(), b.to_dense()
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def _remember_array(array: np.ndarray[Any, Any]) -> Restore:
    known = array.copy()

    def restore() -> bool:
        if array.shape == known.shape and array.tobytes() == known.tobytes():
            return False
        array.resize(known.shape, refcheck=False)
        array[...] = known
        return True

    return restore


def _remember_container(container: Any) -> Restore:
    """A list, set, dictionary or one of ``collections``: what it holds, by identity and in order."""
    pairs = isinstance(container, dict)
    known = list(container.items() if pairs else container)

    def restore() -> bool:
        now = list(container.items() if pairs else container)
        flat_now, flat_known = ([part for pair in items for part in pair] if pairs else items for items in (now, known))
        if len(now) == len(known) and all(a is b for a, b in zip(flat_now, flat_known, strict=True)):
            return False
        container.clear()
        if hasattr(container, "extend"):
            container.extend(known)
        else:
            container.update(known)
        return True

    return restore


def _random_state(model: nn.Module) -> Callable[[], None]:
    """The state of every global generator that a forward pass may draw from, and how to put it back."""
    state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    of_devices = {device: torch.cuda.get_rng_state(device) for device in devices}

    def restore() -> None:
        torch.set_rng_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for device, own in of_devices.items():
            torch.cuda.set_rng_state(own, device)

    return restore
