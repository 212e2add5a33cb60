"""The one place through which a model is called: its dtype, its batches, the shape of its output, its failures.

``with calling(model, images) as network`` gives a :class:`ModelCall` for the length of a block, and leaves the model as
it was found. Whatever a model raises becomes one :class:`ModelError` that names the model, the shape and the reason.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.errors import AssayError, ModelError, one_line
from assay.models.outputs import Single, kind_of_single_output, read_outputs
from assay.runtime import device_of, dtype_of, preserved
from assay.runtime.memory import batch_bytes, batch_share, ran_out_of_memory
from assay.runtime.model_state import ModelState
from assay.runtime.sharing import once

T = TypeVar("T")
FILLED = 8  # rows of a batch for a model that refuses fewer
_ONLY_SIZES = (1, 2, 4, 16, 32, 64, 128)  # of a model that takes batches of one size only, such as a traced program
_VALUES = 2**23  # pixel values of one batch without gradients; a network holds some hundred times as many
_VALUES_WITH_GRADIENTS = 2**21
_LARGE = 2**14  # pixel values of an image from which on a model's need of memory is measured


def rows_that_fit(image_shape: Iterable[int], *, most: int, gradients: bool = False) -> int:
    """Images of one batch, at most ``most``, so that memory does not grow with their size: 55 of 224 × 224 × 3."""
    share, values = batch_share(), _VALUES_WITH_GRADIENTS if gradients else _VALUES
    least = FILLED if share == 1.0 else 1
    return min(most, max(least, int(share * values) // max(1, math.prod(image_shape))))


class Need(NamedTuple):
    """Bytes of memory that one image needs: of the graph of its gradient, and of the largest tensor in it."""

    graph: int
    largest: int

    def rows(self, *, gradients: bool) -> int:
        """Images of one batch. A pass without gradients has some four of the largest tensors at one time."""
        limit = batch_bytes(gradients=gradients)
        return max(1, limit // max(1, self.graph + 2 * self.largest if gradients else 4 * self.largest))


def measure_need(run: Callable[[Tensor], object], images: Tensor, *, fixed: Iterable[Tensor]) -> Need | None:
    """What ``run`` on ``images`` (N, C, H, W) keeps for its backward pass, but for the ``fixed`` tensors.

    None where it fails, or keeps nothing that can be seen, as a program that runs elsewhere.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in fixed if not is_lazy(tensor)}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor  # alive as long as the graph is, so that no other tensor takes its place

    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = run(images.detach().clone().requires_grad_())
    except Exception:  # whoever needs the gradient says why there is none
        return None
    n = len(images)
    del outputs
    return Need(sum(sizes.values()) // n, max(sizes.values()) // n) if sizes else None


@contextmanager
def calling(
    model: nn.Module, images: Tensor, *, classes: int | Sequence[str] | None = None, training: bool | None = False
) -> Iterator[ModelCall]:
    """``model`` as every measurement calls it, for the length of a block; it is left as it was found.

    How it wants to be called is tried out on the first two of ``images`` (N, C, H, W): whether it takes a batch of one,
    ``channels_last``, and an input that it may not write over; whether a call changes what the next one gives. That is
    done once for all blocks in a scope of ``runtime.sharing``.
    ``classes`` are those of the data, or how many it has, None for any number of logits. ``training`` sets the mode
    (None: as found). Raises :class:`ModelError` for a model that cannot be run on such images.
    """
    check_device(model)
    with preserved(model, training=training):
        names = () if classes is None or isinstance(classes, int) else tuple(classes)
        count = classes if classes is None or isinstance(classes, int) else len(names)

        def try_out() -> ModelCall:
            network = ModelCall(model, device_of(model), dtype_of(model), classes=count, names=names)
            network.try_out(model, images[:2])
            return network

        if training is not False or _recurrent(model):  # what is tried out depends on, or sets, the mode of layers
            yield try_out()
        else:
            key = ("call", model, images.shape[1:], min(len(images), 2), count, names, torch.is_grad_enabled())
            yield copy.copy(once(key, try_out))


def notes_on(model: nn.Module, images: Tensor, *, classes: Sequence[str]) -> tuple[str, ...]:
    """How ``model`` has to be called, and which part of its output are the logits, where that is not plain."""
    with calling(model, images, classes=classes) as network:
        return network.notes


@dataclass(eq=False)
class ModelCall:
    """Images (N, C, H, W) in, logits (N, K) out: float32 (or float64, as the model has), contiguous.

    ``smallest`` and ``largest`` bound the rows of one batch: fewer are filled up by repeating rows, more are split.
    ``model`` is what is called: the model, or a function that calls it in a way of its own.
    """

    model: Callable[[Tensor], Tensor]
    device: torch.device
    dtype: torch.dtype
    classes: int | None = None
    layout: torch.memory_format = torch.contiguous_format
    smallest: int = 1
    largest: int | None = None
    overwrites: bool = False  # it changes its input, and is given a copy
    names: tuple[str, ...] = ()  # of the classes of the data
    origin: str | None = None  # where the logits are in what it returns, where no name says so
    single: Single | None = None  # what its one output is, of a model of two classes
    positive: int = 1  # the class that it speaks for
    unclear: bool = False  # ... which has the values of a probability, but no sigmoid made it
    state: ModelState | None = field(default=None, repr=False)  # of a model that changes it in every call
    need: Need | None = None  # of memory, where images are large

    @property
    def note(self) -> str | None:
        """What a reader should know about the batches it was given."""
        if self.smallest == self.largest:
            return f"the model takes batches of {self.smallest} only: it was given such"
        if self.smallest > 1:
            return f"the model fails on small batches: rows were repeated up to {self.smallest}"
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about its batches and about its outputs."""
        place = f"class {self.positive}" if self.positive >= 0 else "a class that the data do not have"
        names = dict(enumerate(self.names))
        positive = f"{place} ({names[self.positive]})" if self.positive in names else place
        one = None if self.single is None else f"the model has one output, taken as the {self.single} of {positive}"
        if self.unclear:
            one = f"{one}, though it lies between 0 and 1 as probabilities do"
        own: tuple[str, ...] = getattr(self.model, "notes", ()) if _is_ours(self.model) else ()
        return (*own, *(note for note in (self.note, self.origin, one) if note is not None))

    def try_out(self, model: nn.Module, images: Tensor) -> None:
        """Find out, without gradients, how ``model`` wants to be called."""
        state = ModelState(model, buffers=not model.training)  # in training, running statistics are to change
        with torch.no_grad():
            example = images.detach().to(self.device, torch.float32)
            self._choose_dtype(model, example)
            written = example.to(self.dtype, copy=True)
            version = written._version
            outputs = self(written)
            self.overwrites = written._version != version
            if state.restore():
                self.state = state
            if self.single == "logit":
                outputs = self._read_single(model, example)
            if any(isinstance(module, nn.Conv2d) for module in model.modules()):
                self._choose_layout(example, outputs)
            large = example[0].numel() >= _LARGE and not model.training
            if large:
                self.measure_need(model, example)
            if self.need is None and self.smallest == 1 and len(images) > 1:  # else it has taken one image already
                self(example[:1])  # fills up where that is refused
                if large and self.smallest > 1:
                    self.measure_need(model, example)
        if torch.is_grad_enabled() and not model.training:
            self._allow_backward(model, example)

    def measure_need(self, model: nn.Module, images: Tensor) -> None:
        """Measure, where it shows, how much memory one of ``images`` needs in ``model``, which is what this calls."""
        fixed = (*model.parameters(), *model.buffers())
        self.need = measure_need(self._once, self._fill(images[:1]), fixed=fixed)

    def _read_single(self, model: nn.Module, example: Tensor) -> Tensor:
        """Find out what the one output of the model is; its logits once that is known."""
        batch = self._fill(example[: self.largest]).to(self.dtype, copy=True)
        with suppress(Exception):  # a program whose operations cannot be followed
            self.single = kind_of_single_output(model, batch)
        logits = self(example.clone())
        z = logits[:, 1]
        self.unclear = self.single == "logit" and bool(((z >= 0) & (z <= 1)).all())
        return logits

    def _allow_backward(self, model: nn.Module, example: Tensor) -> None:
        """Run recurrent layers in training mode, without dropout, where a device refuses their backward pass else."""
        layers = _recurrent(model)
        leaf = example.detach().clone().requires_grad_()
        try:
            outputs = self(leaf) if layers else leaf.detach()
            if outputs.requires_grad:
                torch.autograd.grad(outputs.sum(), leaf, allow_unused=True)
        except Exception as error:  # any other failure is that of the measurement which needs the gradient
            if "training mode" in one_line(error):
                for layer in layers:
                    layer.training, layer.dropout = True, 0.0  # both are put back with the model
                self.state = self.state and ModelState(model)

    def _choose_dtype(self, model: nn.Module, example: Tensor) -> None:
        """Of a model with parameters of several dtypes: the first in which it runs."""
        dtypes = list(dict.fromkeys(p.dtype for p in model.parameters() if p.is_floating_point()))
        for dtype in dtypes if len(dtypes) > 1 else ():
            self.dtype = dtype
            with suppress(ModelError):
                self(example.clone())
                return
            self.dtype = dtypes[0]

    def _choose_layout(self, example: Tensor, outputs: Tensor) -> None:
        """``channels_last``, the fast path of convolutions, where the model gives the same from it."""
        self.layout = torch.channels_last
        try:
            others = self._once(self._fill(example[: self.largest]))[: len(outputs)]
            scale = float(outputs.abs().nan_to_num(posinf=0.0).max())
            same = torch.allclose(others, outputs[: len(others)], rtol=0, atol=0.01 * scale, equal_nan=True)
        except ModelError:
            same = False
        if not same:
            self.layout = torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of ``images``; gradients flow through it. Raises :class:`ModelError`."""
        n = len(images)
        if n == 0:
            return torch.zeros(0, self.classes or 0, device=images.device)
        most = self._most_rows()
        if most is not None and n > most:
            return torch.cat([self(part) for part in torch.split(images, most)])
        batch = self._fill(images)
        try:
            return self._once(batch)[:n]
        except ModelError as error:
            if ran_out_of_memory(error) and len(batch) > self.smallest:
                self.largest = (len(batch) + 1) // 2
                return self(images)
            if 1 < self.smallest < len(batch) and self.largest is None:
                self.largest = self.smallest  # no more than what it has taken before
                return self(images)
            if self.smallest > 1:
                raise
            return self._in_other_batches(images, error)

    def _most_rows(self) -> int | None:
        """Rows of one call; None for any number. With gradients all parts of a batch would be kept together."""
        if self.need is None or torch.is_grad_enabled():
            return self.largest
        fitting = max(self.need.rows(gradients=False), self.smallest)
        return fitting if self.largest is None else min(fitting, self.largest)

    def rows_that_fit(self, image_shape: Iterable[int], *, most: int, gradients: bool = False) -> int:
        """Images of one batch, at most ``most``: as measured on the model where they are large."""
        rows = rows_that_fit(image_shape, most=most, gradients=gradients)
        return rows if self.need is None else min(most, self.need.rows(gradients=gradients))

    def _fill(self, images: Tensor) -> Tensor:
        n = len(images)
        return images if n >= self.smallest else images[torch.arange(self.smallest, device=images.device) % n]

    def _in_other_batches(self, images: Tensor, error: ModelError) -> Tensor:
        """A model that refuses this batch is offered more rows, then batches of one size; else the first ``error``."""
        bounds = self.smallest, self.largest
        more = [(FILLED, None)] if len(images) < FILLED else []
        for self.smallest, self.largest in (*more, *((size, size) for size in _ONLY_SIZES)):
            try:
                with torch.no_grad():
                    self._once(self._fill(images[: self.largest].detach().clone()))
            except ModelError:
                continue
            return self(images)
        self.smallest, self.largest = bounds
        raise error

    def _once(self, batch: Tensor) -> Tensor:
        batch = batch.to(self.device, self.dtype, copy=self.overwrites).contiguous(memory_format=self.layout)
        if self.state is not None:
            self.state.restore()  # before the call, since a backward pass may still need what the last one wrote
        with refusing(self.model, batch.shape):
            outputs = self.model(batch)
        logits = self.read(outputs, n=len(batch))
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).contiguous()

    def read(self, outputs: object, *, n: int) -> Tensor:
        """The logits (n, K) in what the model returned, as :func:`~assay.models.outputs.read_outputs` finds them."""
        parts = read_outputs(outputs, n=n, classes=self.classes, single=self.single or "logit")
        self.classes, self.origin = parts.logits.shape[1], parts.origin
        self.single, self.positive = parts.single, parts.positive
        return parts.logits

    def batches(self, n: int, *, size: int, load: Callable[[Tensor], Tensor] | None = None) -> tuple[list[Tensor], int]:
        """Indices of batches that a model with hooks can be given: each of ``n`` samples in them equally often.

        Returns the batches, none of a size that the model refuses, and how often each sample occurs: once, but for a
        model that refuses small batches where there are few samples, or takes batches of one size only. ``load`` gives
        the images of such indices: with it, the first batch is tried out before anything is counted.
        """
        if load is not None:
            with torch.no_grad():
                self(load(self.batches(n, size=size)[0][0]))
        if self.smallest == self.largest:
            times = math.lcm(n, self.smallest) // n
            return list(torch.split(torch.arange(n * times) % n, self.smallest)), times
        times = -(-self.smallest // n)
        rows = torch.arange(n * times) % n
        size = min(size, self.largest or size)
        parts = max(1, min(-(-len(rows) // size), len(rows) // self.smallest))
        return list(torch.tensor_split(rows, parts)), times


def check_device(model: nn.Module) -> None:
    """Raise :class:`ModelError` for a model on the device ``meta``, which holds shapes alone."""
    if device_of(model).type == "meta":
        raise ModelError("model", expected="a model with weights", got="one on the device meta, which holds no values")


def check_logits(outputs: object, *, n: int, classes: int | None = None) -> int:
    """The K of the logits (n, K) in ``outputs``; raises :class:`ModelError` for no logits, or another K."""
    return int(read_outputs(outputs, n=n, classes=classes).logits.shape[1])


@contextmanager
def refusing(
    model: object, shape: Iterable[int] | None = None, *, expected: str | None = None, where: str = "model(images)"
) -> Iterator[None]:
    """Whatever fails inside, a forward or a backward pass, becomes one :class:`ModelError`.

    It names the ``model``, what was ``expected`` of it (by default, to take images of this ``shape``) and the reason.
    """
    try:
        yield
    except AssayError:
        raise
    except Exception as error:
        dimensions = ", ".join(map(str, tuple(shape or ())[1:]))
        reason = f": {text}" if (text := one_line(error)) else ""
        got = f"{type(error).__name__}{reason} (in {_class_of(model)})"
        takes = f"a model that takes images of shape (N, {dimensions})"
        raise ModelError(where, expected=expected or takes, got=got) from error


def differentiate(model: object, run: Callable[[], T]) -> T:
    """The result of ``run``, a forward and a backward pass through ``model``.

    cuDNN refuses the backward pass of a recurrent layer in evaluation mode: it is then run without cuDNN and, where a
    device refuses that as well, with the recurrent layers in training mode without dropout, which gives the same.
    """
    for way in (nullcontext(), torch.backends.cudnn.flags(enabled=False)):
        try:
            with way:
                return run()
        except (RuntimeError, ModelError) as error:
            layers = _recurrent(model)
            if not layers or "training mode" not in str(error):
                raise
    with _in_training(layers):
        return run()


def _recurrent(model: object) -> list[nn.RNNBase]:
    inner = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    return [layer for layer in inner.modules() if isinstance(layer, nn.RNNBase)] if isinstance(inner, nn.Module) else []


@contextmanager
def _in_training(layers: Iterable[nn.RNNBase]) -> Iterator[None]:
    """Recurrent layers in training mode, their dropout turned off, for the length of a block."""
    before = [(layer, layer.training, layer.dropout) for layer in layers]
    for layer, _, _ in before:
        layer.training, layer.dropout = True, 0.0
    try:
        yield
    finally:
        for layer, training, dropout in before:
            layer.training, layer.dropout = training, dropout


def _is_ours(model: object) -> bool:
    return type(model).__module__.startswith("assay.")


def _class_of(model: object) -> str:
    """The name of the class that a user knows: that of the network behind our own wrappers."""
    while _is_ours(model) and isinstance(getattr(model, "model", None), nn.Module):
        model = model.model  # type: ignore[attr-defined]
    return type(model).__name__


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of a model that keeps results of a computation, such as a normalised weight or a cache.

    Raises :class:`ModelError` for a model that cannot be copied, such as one that holds an open file.
    """
    tensors = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    memo = {id(tensor): tensor.detach().clone() for tensor in tensors if not tensor.is_leaf}
    with refusing(model, expected="a model that can be copied", where="model"):
        return copy.deepcopy(model, memo)
