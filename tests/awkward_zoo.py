"""Awkward models: image classifiers of the kinds that people write, each beside a plain twin with the same numbers.

``CASES`` lists them for the tests of all probes; ``WRAPPERS`` are those that can be put around any classifier, which
``benchmarks/fuzz.py`` draws from.
"""

from __future__ import annotations

import random
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from assay.data.dataset import ImageDataset

SHAPE, K, N = (3, 8, 8), 4, 12

# What a probe needs: weights that are there, a forward pass, logits from it, derivatives, training mode, a copy, layers
# that hooks reach, as many logits as the data has classes, finite buffers.
WEIGHTS, FORWARD, LOGITS, BACKWARD = "weights", "forward", "logits", "backward"
TRAINING, COPY, LAYERS, CLASSES, FINITE = "training", "copy", "layers", "classes", "finite"


@dataclass(frozen=True)
class Case:
    """A model of ``build`` and what a probe makes of it.

    ``twin`` builds a plain model with the same numbers; None where they are its own (random outputs, statistics of the
    batch), so that only the form of the outcome and the state of the model can be judged. ``cannot`` names what must
    be refused in one line, ``may_refuse`` what may be; all else must be measured. Numbers agree within ``tolerance``
    relative to the larger; ``own`` are fields of records in which the model is right to differ from its twin.
    """

    build: Callable[[], nn.Module]
    twin: Callable[[], nn.Module] | None = None
    cannot: frozenset[str] = frozenset()
    may_refuse: frozenset[str] = frozenset()
    tolerance: float = 2e-4
    own: frozenset[str] = frozenset()
    classes: int = K


class Plain(nn.Module):
    """Two layers, a normalisation with statistics, a rectifier; every number of it follows from the seed."""

    def __init__(self, classes: int = K, *, seed: int = 7) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 6, 3, padding=1, stride=2)
            self.norm = nn.BatchNorm2d(6)
            self.head = nn.Linear(96, classes)
            with torch.no_grad():
                self.head.weight.mul_(4)
                nn.init.normal_(self.norm.running_mean, std=0.1)
                nn.init.uniform_(self.norm.running_var, 0.03, 0.08)
        self.eval()

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # type: ignore[no-any-return]


def pictures(classes: int = K, *, n: int = N) -> ImageDataset:
    """Random patches of colour; the plain model is right about three in four of them."""
    draws = torch.Generator().manual_seed(3)
    coarse = F.interpolate(torch.rand(n, 3, 2, 2, generator=draws), SHAPE[1:], mode="nearest")
    images = (255 * (0.8 * coarse + 0.2 * torch.rand(n, *SHAPE, generator=draws))).to(torch.uint8)
    with torch.no_grad():
        labels = Plain(classes)(images / 255).argmax(dim=1)
    labels[::4] = (labels[::4] + 1) % classes
    return ImageDataset(images, labels, classes=tuple(f"class {i}" for i in range(classes)), name="made", split="test")


# ---------------------------------------------------------------------------------------------- exceptions


class UnprintableError(Exception):
    """Its message cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


FAILURES: Mapping[str, Callable[[], Exception]] = {
    "RuntimeError": lambda: RuntimeError("sizes\n of tensors\n differ"),
    "ValueError": lambda: ValueError("expected more than 1 value"),
    "TypeError": lambda: TypeError("an argument is missing"),
    "IndexError": lambda: IndexError("out of range"),
    "KeyError": lambda: KeyError("mask"),
    "AttributeError": lambda: AttributeError("no such attribute"),
    "AssertionError": AssertionError,
    "NotImplementedError": NotImplementedError,
    "ZeroDivisionError": lambda: ZeroDivisionError("division by zero"),
    "OSError": lambda: FileNotFoundError(2, "No such file or directory", "mask.npy"),
    "StopIteration": StopIteration,
    "OverflowError": lambda: OverflowError("too large"),
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "MemoryError": MemoryError,
    "ImportError": lambda: ImportError("no module named flash"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "OutOfMemoryError": lambda: torch.OutOfMemoryError("out of memory"),
    "ExceptionGroup": lambda: ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
    "unprintable": UnprintableError,
}


# ---------------------------------------------------------------------------------------------- wrappers


class Wrapper(nn.Module):
    """A module around a classifier; by itself it changes nothing."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Raises(Wrapper):
    """Raises where ``when(self, x)`` holds."""

    def __init__(
        self,
        inner: nn.Module,
        failure: Callable[[], Exception] = lambda: RuntimeError("no"),
        *,
        when: Callable[[nn.Module, Tensor], bool] = lambda module, x: True,
    ) -> None:
        super().__init__(inner)
        self.failure, self.when = failure, when

    def forward(self, x: Tensor) -> Any:
        if self.when(self, x):
            raise self.failure()
        return self.inner(x)


def alone(module: nn.Module, x: Tensor) -> bool:
    return len(x) == 1


def in_training(module: nn.Module, x: Tensor) -> bool:
    return module.training


class Squeezes(Wrapper):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).squeeze()  # type: ignore[no-any-return]


class ViewsRows(Wrapper):
    """An empty batch has no −1, ``channels_last`` no view."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.view(x.size(0), -1).view(x.shape))  # type: ignore[no-any-return]


class FailsInBackward(Wrapper):
    """Overwrites what its backward pass needs; the numbers are those of the inner model."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        y = logits * 1
        z = logits + 0 * y.square()
        y.add_(1)
        return z  # type: ignore[no-any-return]


class _Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, failure: Callable[[], Exception]) -> Tensor:
        ctx.failure = failure
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise ctx.failure()


class RaisesInBackward(Wrapper):
    def __init__(self, inner: nn.Module, failure: Callable[[], Exception] = AssertionError) -> None:
        super().__init__(inner)
        self.failure = failure

    def forward(self, x: Tensor) -> Tensor:
        return _Refusing.apply(self.inner(x), self.failure)  # type: ignore[no-any-return]


class InPlaceRectifier(Plain):
    """The rectifier overwrites what the normalisation returned."""

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True).flatten(1)


class InPlaceAfterLast(Plain):
    """The result of the last layer is overwritten by what follows it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).mul_(2)  # type: ignore[no-any-return]


class Doubled(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)) * 2  # type: ignore[no-any-return]


class WantsLabels(Wrapper):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = self.inner(x)
        if self.training:
            return F.cross_entropy(logits, labels)  # type: ignore[arg-type]
        return logits  # type: ignore[no-any-return]


Both = namedtuple("Both", ["logits", "aux_logits"])


class Auxiliary(Wrapper):
    """Returns more than logits in training mode, or always."""

    def __init__(self, inner: nn.Module, kind: Callable[[Tensor], Any], *, always: bool = False) -> None:
        super().__init__(inner)
        self.kind, self.always = kind, always

    def forward(self, x: Tensor) -> Any:
        logits = self.inner(x)
        return self.kind(logits) if self.training or self.always else logits


OUTPUTS: Mapping[str, Callable[[Tensor], Any]] = {
    "tuple": lambda z: (z, z * 0.5),
    "dict": lambda z: {"logits": z, "aux": z * 0.5},
    "named tuple": lambda z: Both(z, z * 0.5),
    "list": lambda z: [z],
}


class Scales(Wrapper):
    """Its first parameter has another dtype than the rest."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))
        self.inner = inner
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale.float()  # type: ignore[no-any-return]


class MixedDtypes(Plain):
    """The convolution in float32, the head in bfloat16, as half-converted networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.head.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).bfloat16())  # type: ignore[no-any-return]


def rounded(dtype: torch.dtype) -> nn.Module:
    """The plain model with weights rounded to ``dtype``, computing in float32."""
    return Plain().to(dtype).float()


def rounded_head() -> nn.Module:
    model = Plain()
    model.head.to(torch.bfloat16).float()
    return model


class Rows(nn.Module):
    """A recurrence over the rows of a picture; ``carries`` its state from one call to the next."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, *, carries: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.body, self.head = kind(24, 8, batch_first=True), nn.Linear(8, K)
        self.carries, self.state = carries, None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)
        states, last = self.body(rows, self.state)
        if self.carries:
            self.state = last
        return self.head(states[:, -1])  # type: ignore[no-any-return]


class Steps(nn.Module):
    """The same with a cell and the loop written out."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.cell, self.head = nn.GRUCell(24, 8), nn.Linear(8, K)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for row in x.transpose(1, 2).flatten(2).unbind(1):
            h = self.cell(row, h)
        return self.head(h)  # type: ignore[no-any-return]


class GrowingList(Wrapper):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.inner(x)  # type: ignore[no-any-return]


class CacheByShape(Wrapper):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.ones: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        ones = self.ones.setdefault(tuple(x.shape), torch.ones_like(x))
        return self.inner(x * ones)  # type: ignore[no-any-return]


class MaskOfFirstBatch(Wrapper):
    """Fails for a batch of another size than the first."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.ones_like(x)
        if len(self.mask) != len(x):
            raise RuntimeError(f"the mask is for {len(self.mask)} images")
        return self.inner(x * self.mask)  # type: ignore[no-any-return]


class CachedWeight(Plain):
    """Keeps what it made of a parameter at its first call, cut off from it where that call had no gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.cached: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cached is None:
            self.cached = self.head.weight * 1.0
        return F.linear(self.features(x), self.cached, self.head.bias)


class UncachedWeight(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.features(x), self.head.weight * 1.0, self.head.bias)


class KeepsGraph(Wrapper):
    """Keeps a tensor with its graph, of which ``copy.deepcopy`` makes no copy."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.inner(x)
        return self.last  # type: ignore[return-value]


def reparametrised(change: Callable[[nn.Module], object]) -> nn.Module:
    model = Plain()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        change(model.head)
    return model.eval()


def normalised_spectrally() -> nn.Module:
    """What ``spectral_norm`` computes, with the weight it arrives at."""
    model, made = Plain(), reparametrised(parametrizations.spectral_norm)
    with torch.no_grad():
        model.head.weight.copy_(made.head.weight)  # type: ignore[union-attr, operator, arg-type]
    return model


class Shared(nn.Module):
    """One layer and one rectifier used twice."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(9)
            self.first, self.head = nn.Linear(192, 192), nn.Linear(192, K)
        self.second = nn.Linear(192, 192) if tied else self.first
        self.second.weight, self.second.bias = self.first.weight, self.first.bias
        self.act = nn.ReLU()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.second(self.act(self.first(x.flatten(1))))))  # type: ignore[no-any-return]


class CentresBatch(Wrapper):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(dim=0, keepdim=True) + 0.5)  # type: ignore[no-any-return]


def of_batch_statistics() -> nn.Module:
    model = Plain()
    model.norm = nn.BatchNorm2d(6, track_running_stats=False)
    return model.eval()


class Returns(Wrapper):
    """``change`` of the logits is returned."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Any]) -> None:
        super().__init__(inner)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.inner(x))


def nan_for_some(logits: Tensor) -> Tensor:
    return torch.where(logits[:, :1] > 0, torch.nan, logits)


class OverwritesInput(Wrapper):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.sub_(0.1).mul_(0.5))  # type: ignore[no-any-return]


class ChangesInput(Wrapper):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x - 0.1) * 0.5)  # type: ignore[no-any-return]


class Counts(Wrapper):
    """Changes its own buffers and attributes at every call, in evaluation mode too."""

    calls: Tensor
    largest: Tensor

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("largest", torch.full((2,), torch.nan))
        self.register_buffer("made", None)
        self.number, self.shapes = 0, {"seen": []}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.largest = x.detach().amax().expand(2)  # another tensor in its place
        self.made = x.detach().clone()
        self.number += 1
        self.shapes["seen"].append(tuple(x.shape))
        self.extra = self.number
        return self.inner(x)  # type: ignore[no-any-return]


class ChangesMode(Wrapper):
    """Switches itself to evaluation, freezes a parameter, and does not switch back."""

    def forward(self, x: Tensor) -> Tensor:
        self.inner.eval()
        logits = self.inner(x)
        self.inner.train()
        next(self.inner.parameters()).requires_grad_(False)
        return logits  # type: ignore[no-any-return]


class DropsAlways(Wrapper):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(F.dropout(x, 0.5, training=True))  # type: ignore[no-any-return]


class Draws(Wrapper):
    """Takes numbers from every global generator, to no effect."""

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3)
        np.random.rand(3)
        random.random()
        return self.inner(x)  # type: ignore[no-any-return]


class Frozen(Wrapper):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.requires_grad_(False)


class KeepsNormFrozen(Wrapper):
    """Fine-tuning code does this: ``train()`` leaves the normalisation in evaluation mode."""

    def train(self, mode: bool = True) -> KeepsNormFrozen:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class TrainReturnsNothing(Wrapper):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


class PlainTensors(nn.Module):
    """Its weights are tensors on no module's list."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(K, 192, generator=torch.Generator().manual_seed(1)) * 0.2
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.t()


class Flat(nn.Module):
    """The twin of :class:`PlainTensors`, with a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, K, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(PlainTensors().weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Colours(nn.Module):
    """No parameters at all."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3))
        return 50 * torch.cat([means, means.mean(dim=1, keepdim=True)], dim=1)


class AnyArguments(Wrapper):
    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        return self.inner(*inputs, **options)  # type: ignore[no-any-return]


class Optional(Wrapper):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, return_features: bool = False) -> Any:
        logits = self.inner(x if mask is None else x * mask)
        return (logits, x) if return_features else logits


class Prints(Wrapper):
    def forward(self, x: Tensor) -> Tensor:
        print("forward", tuple(x.shape))
        return self.inner(x)  # type: ignore[no-any-return]


class Recurses(Wrapper):
    def forward(self, x: Tensor) -> Tensor:
        return self.forward(x + 1)


class KeepsHandles(Wrapper):
    """Holds what can neither be copied nor pickled."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.rows = (row for row in range(3))


class SpecialBuffers(Wrapper):
    """Buffers that do not take ``copy_`` or ``torch.equal``: expanded and NaN, sparse."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.register_buffer("expanded", torch.full((1,), torch.nan).expand(4))
        self.register_buffer("sparse", torch.eye(3).to_sparse())


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.LazyConv2d(4, 3), nn.LazyLinear(K)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)).flatten(1))  # type: ignore[no-any-return]


class FixedBatch(Wrapper):
    """Takes batches of one size only, as exported programs do."""

    def __init__(self, inner: nn.Module, size: int = 8) -> None:
        super().__init__(inner)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != self.size:
            raise RuntimeError(f"Expected input's dimension at 0 to be equal to {self.size}, but got {len(x)}")
        return self.inner(x)  # type: ignore[no-any-return]


class Pairs(Wrapper):
    """Takes even batches only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.reshape(len(x) // 2, 2, *x.shape[1:]).flatten(0, 1))  # type: ignore[no-any-return]


def quietly(make: Callable[..., nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    """Without the warnings that torch gives about what it will drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*arguments, **options)


class BakedInBatch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).view(1, -1))  # type: ignore[no-any-return]


def quantised() -> nn.Module:
    return quietly(torch.ao.quantization.quantize_dynamic, Plain(), {nn.Linear})


def nested(depth: int) -> nn.Module:
    model: nn.Module = Plain()
    for _ in range(depth):
        model = nn.Sequential(model)
    return model.eval()


def with_forward_replaced() -> nn.Module:
    model = Plain()
    model.forward = partial(Plain.forward, model)  # type: ignore[method-assign]
    return model


def with_hook() -> nn.Module:
    model = Plain()
    model.register_forward_hook(lambda module, args, output: output * 2)
    return model


WRAPPERS: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "nothing": Wrapper,
    "squeezes": Squeezes,
    "views rows": ViewsRows,
    "fails on one image": partial(Raises, when=alone),
    "fails in training mode": partial(Raises, when=in_training),
    "needs four images": partial(Raises, when=lambda module, x: len(x) < 4),
    "takes at most five": partial(Raises, failure=FAILURES["OutOfMemoryError"], when=lambda module, x: len(x) > 5),
    "grows a list": GrowingList,
    "cache by shape": CacheByShape,
    "mask of the first batch": MaskOfFirstBatch,
    "keeps its graph": KeepsGraph,
    "auxiliary tuple in training": partial(Auxiliary, kind=OUTPUTS["tuple"]),
    "wants labels in training": WantsLabels,
    "first parameter in float64": partial(Scales, dtype=torch.float64),
    "first parameter in bfloat16": partial(Scales, dtype=torch.bfloat16),
    "not contiguous": partial(Returns, change=lambda z: z.t().contiguous().t()),
    "counts": Counts,
    "changes its mode": ChangesMode,
    "draws": Draws,
    "frozen": Frozen,
    "train() returns nothing": TrainReturnsNothing,
    "any arguments": AnyArguments,
    "optional arguments": Optional,
    "holds a generator": KeepsHandles,
    "special buffers": SpecialBuffers,
}
_WEIGHTS, _FORWARD, _LOGITS, _BACKWARD, _TRAINING, _COPY, _LAYERS = (
    frozenset({each}) for each in (WEIGHTS, FORWARD, LOGITS, BACKWARD, TRAINING, COPY, LAYERS)
)
_FINITE = frozenset({FINITE})
_HINDERED: Mapping[str, frozenset[str]] = {
    "fails in training mode": _TRAINING,
    "wants labels in training": _TRAINING,
    "needs four images": _TRAINING,
    "takes at most five": _TRAINING | _COPY,
    "mask of the first batch": _TRAINING,
    "frozen": _TRAINING,
    "changes its mode": _TRAINING,
    "first parameter in float64": _TRAINING,  # which computes in the dtype of the first
    "first parameter in bfloat16": _TRAINING,
    "counts": _FINITE,
    "special buffers": _FINITE,
    "holds a generator": _COPY,
    "keeps its graph": _COPY,
}


_SCALED = frozenset(
    {"layers", "blocks", "groups", "parameters", "trainable_parameters", "decay_per_layer", "redundancy", "other"}
    | {"eigenvalues", "smallest", "residual", "trace", "trace_error", "critical_learning_rate"}
)
_AUXILIARY = frozenset({"depth_trace", "flops", "layers"})  # whose losses train too
_DIFFERENT: Mapping[str, frozenset[str]] = {
    "first parameter in float64": _SCALED | {"flops"},
    "first parameter in bfloat16": _SCALED | {"flops"},
    "changes its mode": frozenset({"depth_trace"}),  # what is trained is in evaluation mode, and frozen in part
    "frozen": frozenset({"frozen", "frozen_parameters", "trainable_parameters", "groups", "missed_by_name"}),
    "auxiliary tuple in training": _AUXILIARY,
    "counts": frozenset({"buffers", "non_finite_parameters", "flops", "layers"}),
    "cache by shape": frozenset({"flops", "layers"}),
    "mask of the first batch": frozenset({"flops", "layers", "reestimated", "reestimated_p"}),
    "special buffers": frozenset({"buffers", "non_finite_parameters"}),
}


def _cases() -> Iterator[tuple[str, Case]]:
    for name, wrap in WRAPPERS.items():
        own = _DIFFERENT.get(name, frozenset())
        yield name, Case(lambda wrap=wrap: wrap(Plain()), Plain, may_refuse=_HINDERED.get(name, frozenset()), own=own)
    for name, failure in FAILURES.items():
        yield f"{name} in forward", Case(lambda f=failure: Raises(Plain(), f), cannot=_FORWARD)
        yield f"{name} on one image", Case(lambda f=failure: Raises(Plain(), f, when=alone), Plain)
        yield (
            f"{name} in training",
            Case(lambda f=failure: Raises(Plain(), f, when=in_training), Plain, may_refuse=_TRAINING),
        )
        yield f"{name} in backward", Case(lambda f=failure: RaisesInBackward(Plain(), f), Plain, cannot=_BACKWARD)
    yield (
        "in-place in backward",
        Case(lambda: FailsInBackward(Plain()), Plain, cannot=_BACKWARD, own=frozenset({"flops", "layers"})),
    )
    yield "in-place rectifier", Case(InPlaceRectifier, Plain)
    yield "in-place after the last layer", Case(InPlaceAfterLast, Doubled)
    for name, kind in OUTPUTS.items():
        yield (
            f"{name} in training",
            Case(lambda kind=kind: Auxiliary(Plain(), kind), Plain, own=_AUXILIARY),
        )
        yield f"{name} always", Case(lambda kind=kind: Auxiliary(Plain(), kind, always=True), Plain, own=_AUXILIARY)
    for dtype, tolerance in ((torch.float16, 1e-2), (torch.bfloat16, 8e-2), (torch.float64, 2e-4)):
        yield (
            str(dtype).removeprefix("torch."),
            Case(lambda d=dtype: Plain().to(d), lambda d=dtype: rounded(d), may_refuse=_TRAINING, tolerance=tolerance),
        )
    yield "mixed dtypes", Case(MixedDtypes, rounded_head, tolerance=8e-2)
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        yield f"{kind.__name__} over rows", Case(partial(Rows, kind), partial(Rows, kind))
    yield "cell over rows", Case(Steps, Steps)
    yield "state carried between calls", Case(lambda: Rows(nn.GRU, carries=True))
    yield "cached weight", Case(CachedWeight, UncachedWeight, may_refuse=_COPY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old_weight_norm, old_spectral_norm = nn.utils.weight_norm, nn.utils.spectral_norm
    own = frozenset({"layers", "parameters", "trainable_parameters", "buffers", "blocks", "unused", "groups"})
    own |= {
        "other",
        "decay_per_layer",
        "redundancy",
        "trace",
        "trace_error",
        "eigenvalues",
        "smallest",
        "residual",
        "critical_learning_rate",
    }
    for name, change in {"weight_norm, old": old_weight_norm, "weight_norm": parametrizations.weight_norm}.items():
        yield name, Case(lambda change=change: reparametrised(change), Plain, own=own)
    for name, change in {
        "spectral_norm, old": old_spectral_norm,
        "spectral_norm": parametrizations.spectral_norm,
    }.items():
        twin = normalised_spectrally if name == "spectral_norm" else None
        yield name, Case(lambda change=change: reparametrised(change), twin, own=own)
    yield "shared modules", Case(Shared, partial(Shared, tied=True), own=own)
    yield "centres the batch", Case(lambda: CentresBatch(Plain()))
    yield "statistics of the batch", Case(of_batch_statistics)
    yield "overwrites its input", Case(lambda: OverwritesInput(Plain()), lambda: ChangesInput(Plain()))
    yield "dropout in evaluation", Case(lambda: DropsAlways(Plain()))
    yield "frozen norm", Case(lambda: KeepsNormFrozen(Plain()), Plain, may_refuse=_TRAINING)
    yield "lazy", Case(Lazy, may_refuse=_WEIGHTS)
    once = frozenset({"reestimated", "reestimated_p"})
    yield "fixed batch of 8", Case(lambda: FixedBatch(Plain()), Plain, may_refuse=_TRAINING, own=once)
    yield "fixed batch of 1", Case(lambda: FixedBatch(Plain(), 1), Plain, may_refuse=_TRAINING, own=once)
    yield "even batches", Case(lambda: Pairs(Plain()), Plain, may_refuse=_TRAINING)
    hidden = frozenset({"layers", "blocks", "depth", "decay_per_layer", "unused", "parameters", "stem", "stem_mean"})
    hidden |= {
        "trainable_parameters",
        "buffers",
        "stem_std",
        "conventions",
        "reestimated",
        "reestimated_p",
        "idle_dropout",
        "groups",
    }
    hidden |= {"other", "redundancy", "frozen_parameters", "missed_by_name", "flops"}
    yield (
        "scripted",
        Case(lambda: quietly(torch.jit.script, Plain()), Plain, may_refuse=_TRAINING | _LAYERS, own=hidden),
    )
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    yield (
        "traced",
        Case(lambda: quietly(torch.jit.trace, Plain(), images), Plain, may_refuse=_TRAINING | _LAYERS, own=hidden),
    )
    yield (
        "traced for one image",
        Case(
            lambda: quietly(torch.jit.trace, BakedInBatch(), images[:1]),
            Plain,
            may_refuse=_TRAINING | _LAYERS,
            own=hidden,
        ),
    )
    yield "compiled", Case(lambda: quietly(torch.compile, Plain(), backend="eager"), Plain)  # type: ignore[arg-type]
    yield "data parallel", Case(lambda: nn.DataParallel(Plain()).eval(), Plain)
    yield "fx graph", Case(lambda: torch.fx.symbolic_trace(Plain()).eval(), Plain)
    yield "NaN for some", Case(lambda: Returns(Plain(), nan_for_some), may_refuse=_BACKWARD)
    yield (
        "infinite for some",
        Case(lambda: Returns(Plain(), lambda z: torch.where(z > 2, torch.inf, z)), may_refuse=_BACKWARD),
    )
    yield "constant", Case(lambda: Returns(Plain(), lambda z: z * 0), may_refuse=_BACKWARD)
    yield "no gradient", Case(lambda: Returns(Plain(), lambda z: z.detach()), may_refuse=_BACKWARD)
    yield "probabilities", Case(lambda: Returns(Plain(), lambda z: z.softmax(dim=1)))
    yield (
        "expanded",
        Case(
            lambda: Returns(Plain(), lambda z: z[:, :1].expand(-1, K)),
            lambda: Returns(Plain(), lambda z: z[:, [0] * K]),
        ),
    )
    yield "maps of one pixel", Case(lambda: Returns(Plain(), lambda z: z[:, :, None, None]), cannot=_LOGITS)
    yield "one number an image", Case(lambda: Returns(Plain(), lambda z: z[:, 0]), cannot=_LOGITS)
    yield "too few classes", Case(lambda: Plain(3), cannot=_LOGITS)
    yield "too many classes", Case(lambda: Plain(1000), cannot=frozenset({CLASSES}))
    yield "class numbers", Case(lambda: Returns(Plain(), lambda z: z.argmax(dim=1)), cannot=_LOGITS)
    yield "integer logits", Case(lambda: Returns(Plain(), lambda z: z.long()), cannot=_LOGITS)
    yield "complex logits", Case(lambda: Returns(Plain(), lambda z: z + 0j), cannot=_LOGITS)
    yield "nothing returned", Case(lambda: Returns(Plain(), lambda z: None), cannot=_FORWARD)
    yield "rows lost", Case(lambda: Returns(Plain(), lambda z: z[: len(z) // 2]), cannot=_LOGITS)
    yield "a thousand classes", Case(lambda: Wrapper(Plain(1000)), lambda: Plain(1000), classes=1000)
    yield (
        "one logit",
        Case(
            lambda: Returns(Plain(1), lambda z: z[:, 0]),
            lambda: Returns(Plain(1), lambda z: torch.cat([0 * z, z], dim=1)),
            classes=2,
            own=frozenset({"flops", "layers"}),
        ),
    )
    yield "two classes", Case(lambda: Squeezes(Plain(2)), lambda: Plain(2), classes=2)
    yield "plain tensors", Case(PlainTensors, Flat, cannot=_LAYERS, own=hidden)
    yield "no parameters", Case(Colours, cannot=_LAYERS)
    yield "quantised", Case(quantised, may_refuse=_BACKWARD | _TRAINING)
    yield "forward replaced", Case(with_forward_replaced, Plain, may_refuse=_COPY)
    yield "hook of the user", Case(with_hook, Doubled)
    yield "prints", Case(lambda: Prints(Plain()), Plain)
    yield "recurses without end", Case(lambda: Recurses(Plain()), cannot=_FORWARD)
    yield "nested 60 deep", Case(lambda: nested(60), Plain, may_refuse=_COPY, own=frozenset())
    yield "not written", Case(nn.Module, cannot=_FORWARD)
    yield "on no device", Case(lambda: Plain().to("meta"), cannot=_FORWARD, may_refuse=_WEIGHTS)


CASES: Mapping[str, Case] = dict(_cases())
