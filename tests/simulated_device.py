"""A device without float64, simulated: its operations run on the CPU, and a float64 tensor on it raises TypeError.

``with simulated_device() as device:`` gives a :class:`torch.device` that models and tensors can be moved to. As on a
real one, tensors of two devices do not mix, and what a tensor holds is reached through ``.cpu()`` or ``.item()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("mps", 0)
_AUTOGRAD = torch.device("meta")  # where autograd, which asks for a driver of the device, takes the tensors to be
_BETWEEN_DEVICES = ("aten::_to_copy", "aten::copy_", "aten::_has_compatible_shallow_copy_type")
_TAKES_CPU_INDICES = ("aten::index.", "aten::index_put", "aten::_index_put_impl_")


class DeviceTensor(Tensor):
    """A tensor that says it is on the device; ``held`` is its memory."""

    held: Tensor
    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=_AUTOGRAD,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"DeviceTensor({self.held!r})"


class _FromData(TorchFunctionMode):
    """Makes tensors of Python numbers on the device: these are built without passing through the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


class _Factories(TorchDispatchMode):
    """Makes new tensors on the device where ``device=`` asks for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


@contextmanager
def simulated_device() -> Iterator[torch.device]:
    """The device, for the length of a block."""
    with _FromData(), _Factories():
        yield DEVICE


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the memory of its tensors, its results on the device that the real one would put them on."""
    name = func._schema.name + "." + func._schema.overload_name
    given = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    ours = [value for value in given if isinstance(value, DeviceTensor)]
    device = kwargs.get("device")
    asked = None if device is None else torch.device(device).type
    others = [value for value in given if not isinstance(value, DeviceTensor) and value.ndim > 0]
    if ours and others and not name.startswith((*_BETWEEN_DEVICES, *_TAKES_CPU_INDICES)):
        raise RuntimeError(f"{name}: expected all tensors on one device, found {DEVICE} and cpu")
    on_device = bool(ours) if asked is None else asked in (DEVICE.type, _AUTOGRAD.type)
    if on_device and asked is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    held_args, held_kwargs = pytree.tree_map_only(DeviceTensor, lambda value: value.held, (args, kwargs))
    result = func(*held_args, **held_kwargs)
    if name.startswith("aten::copy_") or (func._schema.is_mutable and func._schema.name.endswith("_")):
        return args[0]  # changed in place: the same tensor, of the same device
    return pytree.tree_map_only(Tensor, wrap, result) if on_device else result


def wrap(value: Tensor) -> Tensor:
    """The tensor on the device; TypeError for what the device does not have."""
    if value.dtype in (torch.float64, torch.complex128):
        raise TypeError("this device has no float64")
    return value if isinstance(value, DeviceTensor) else DeviceTensor(value)
