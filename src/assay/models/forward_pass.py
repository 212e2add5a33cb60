"""A record of one forward pass: every tensor operation, what it reads, and the module that ran it.

Operations rather than modules are recorded, so that it holds for any model: an addition is seen whether it was written
``x + y``, ``x += y`` or as a module, and a layer used without calling it is seen where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from assay.errors import ModelError
from assay.models.calls import ModelCall, check_device, refusing
from assay.models.operations import CONVOLUTIONS, RECURRENT, Kind, base_name, classify, count_flops, count_multiply_adds
from assay.models.outputs import find_logits
from assay.runtime import device_of, dtype_of, generator, preserved

IMAGES = 2  # enough for code that squeezes a batch of one; a model that refuses so few gets more


@dataclass(frozen=True)
class Operation:
    """One call of one tensor operation.

    ``inputs``    indices of the operations whose results it reads; −1 is the images themselves
    ``module``    name of the innermost module that was running
    ``layers``    how many weight layers it applies in a chain: 1 for kind ``weight``, a recurrence one a step, else 0
    ``kernel``    spatial size of a convolution's kernel, () for a linear layer; ``channels`` its output channels
    ``positions`` places of one image where a weight layer is applied; ``shape`` of the result, batch included
    ``flops``     of the batch; ``multiply_adds`` those of its products alone
    """

    index: int
    name: str
    kind: Kind
    module: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    flops: int
    layers: int = 0
    kernel: tuple[int, ...] = ()
    groups: int = 1
    channels: int = 0
    positions: int = 0
    multiply_adds: int = 0


@dataclass
class ForwardPass:
    """What happened, for a batch of ``images``.

    Operations that do not depend on the images are left out. ``calls``, ``outputs`` and ``first_seen`` are by module
    name: how often it ran, the shape of its last result, and how many operations had run when it first ran. ``users``
    is by the id of a parameter: the module that was running when it was first used. ``output`` is the
    index of the operation that made the logits, −1 if unknown; ``changed`` whether the first weight layer saw anything
    but the images' own pixels.
    """

    images: int = IMAGES
    operations: list[Operation] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    first_seen: dict[str, int] = field(default_factory=dict)
    users: dict[int, str] = field(default_factory=dict)
    output: int = -1
    output_shape: tuple[int, ...] = ()
    changed: bool = False


def record_forward(model: nn.Module, *, image_shape: tuple[int, int, int]) -> ForwardPass:
    """Run ``model`` once in evaluation mode, on its device and in its dtype, on images drawn from U[0, 1].

    The model is left as run, and without hooks. Raises :class:`ModelError` when it cannot take such images.
    """
    check_device(model)
    images = torch.rand(IMAGES, *image_shape, generator=generator(0)).to(device_of(model))
    try:
        return _record(model, images.to(dtype_of(model)))
    except ModelError:  # other batches may suit it, or another dtype
        with preserved(model, training=False), torch.no_grad():
            network = ModelCall(partial(_run, model), images.device, dtype_of(model))
            network.try_out(model, images)
            rows = network.batches(IMAGES, size=IMAGES)[0][0].to(images.device)
        return _record(model, images[rows].to(network.dtype))


def _record(model: nn.Module, images: Tensor) -> ForwardPass:
    run = ForwardPass(len(images))
    recorder = _Recorder(run, images)
    with (
        preserved(model, training=False),
        torch.no_grad(),
        _unfused_attention(),
        _hooked(model, recorder),
        refusing(model, images.shape),
        recorder,
    ):
        result = model(images)
    logits = find_logits(result)[1]
    if logits is None:
        logits = next(iter(_tensors(result)), None)
    if logits is None:
        raise ModelError("model output", expected="a tensor", got=type(result).__name__)
    run.calls.setdefault("", 1)
    run.first_seen.setdefault("", 0)
    run.outputs.setdefault("", tuple(logits.shape))
    run.output, run.output_shape = recorder.source(logits, default=-1), tuple(logits.shape)
    return run


def _run(model: nn.Module, images: Tensor) -> Tensor:
    """Run ``model``, which may return anything: its output is not looked at."""
    model(images)
    return images.flatten(1)[:, :1]


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves the base untyped
    """Sees every operation below autograd. A tensor's source is the last operation that wrote to it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Guarding this class against torch.compile would import its whole compiler, which takes seconds.
        return False

    def __init__(self, run: ForwardPass, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run = run
        self.images = images
        self.pixels = images.clone()
        self.stack: list[str] = [""]
        self.sources: Any = WeakTensorKeyDictionary()
        self.sources[images] = -1
        self.weight_seen = False

    def source(self, tensor: Tensor, *, default: int | None = None) -> Any:
        """The operation that ``tensor`` comes from, ``default`` where it does not depend on the images."""
        # Writing into a view writes into its base, so the later of the two is what a reader of either sees.
        known = [self.sources[part] for part in (tensor, tensor._base) if part is not None and part in self.sources]
        return max(known, default=default)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        sources = [self.source(tensor) for tensor in tensors]
        for tensor in tensors:
            if isinstance(tensor, nn.Parameter):
                self.run.users.setdefault(id(tensor), self.stack[-1])
        data = [source for source in sources if source is not None]
        kind = classify(func, data=len(data), constants=len(tensors) - len(data))
        if kind == "weight" and not self.weight_seen:
            self.weight_seen = True
            seen = next(tensor for tensor, source in zip(tensors, sources, strict=True) if source is not None)
            self.run.changed = not torch.equal(seen.flatten(), self.pixels.flatten())
        result = func(*args, **kwargs)
        results = _tensors(result)
        if data and results:
            operation = self._append(func, kind, args, tuple(dict.fromkeys(data)), results)
            for tensor in results:
                index = operation.index
                if kind == "split":  # the pieces of one value are different values: each gets an operation of its own
                    index, shape = len(self.run.operations), tuple(tensor.shape)
                    piece = replace(
                        operation, index=index, kind="move", inputs=(operation.index,), shape=shape, flops=0
                    )
                    self.run.operations.append(piece)
                self.sources[tensor] = index
                if tensor._base is not None and any(tensor is argument for argument in tensors):
                    self.sources[tensor._base] = index
        return result

    def _append(
        self, func: Any, kind: Kind, args: tuple[Any, ...], inputs: tuple[int, ...], results: list[Tensor]
    ) -> Operation:
        name, out = base_name(func), results[0]
        kernel: tuple[int, ...] = ()
        groups, channels, layers = 1, int(out.shape[-1]) if out.ndim else 0, int(kind == "weight")
        if name in CONVOLUTIONS:
            kernel, channels = tuple(args[1].shape[2:]), int(out.shape[1])
            groups = args[8] if len(args) > 8 else 1
        if name in RECURRENT:
            layers = int(args[0].shape[0]) + 1  # the input's product, then the state's at each step
        index, shape = len(self.run.operations), tuple(out.shape) if kind != "split" else ()
        flops, positions = count_flops(func, args, out), out.numel() // max(1, channels * self.run.images)
        operation = Operation(
            index,
            name,
            kind,
            self.stack[-1],
            inputs,
            shape,
            flops,
            layers,
            kernel,
            groups,
            channels,
            positions,
            count_multiply_adds(func, args, out),
        )
        self.run.operations.append(operation)
        return operation


@contextmanager
def _hooked(model: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder which module runs; take every hook away again."""
    run = recorder.run

    def enter(name: str, _module: nn.Module, _inputs: Any) -> None:
        recorder.stack.append(name)
        run.calls[name] = run.calls.get(name, 0) + 1
        run.first_seen.setdefault(name, len(run.operations))

    def leave(name: str, _module: nn.Module, _inputs: Any, result: Any) -> None:
        recorder.stack.pop()
        tensors = _tensors(result)
        run.outputs[name] = tuple(tensors[0].shape) if tensors else ()

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                hooks.enter_context(module.register_forward_pre_hook(partial(enter, name)))
                hooks.enter_context(module.register_forward_hook(partial(leave, name), always_call=True))
        yield


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Run attention and transformer layers operation by operation: fused ones would be recorded as a single one."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
