"""Which part of what a model returns is its logits, and which parts are the auxiliary outputs of training.

A tensor (N, K); an object or a mapping with ``logits``; a tuple or list whose first tensor is the logits; one output an
image, of shape (N,) or (N, 1), for two classes. Everything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from assay.errors import ModelError
from assay.runtime import uncompiled

Single = Literal["logit", "probability", "log-probability"]  # what the one output of a model of two classes is


class Outputs(NamedTuple):
    """What a model returned for n images, taken apart.

    ``logits`` (n, K). ``auxiliary`` (n, K) each, of the classifiers that some networks have at inner layers, such as
    GoogLeNet: only training uses them. ``origin`` says where the logits were where no name does. ``single`` is what the
    one output was of which two columns were made, None where there were columns already; a large one speaks for the
    class ``positive``.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    origin: str | None = None
    single: Single | None = None
    positive: int = 1


def read_outputs(outputs: object, *, n: int, classes: int | None = None, single: Single = "logit") -> Outputs:
    """The logits in ``outputs`` of a model for ``n`` images; gradients flow through them.

    ``classes`` is how many the data has, None for any number. One output z an image becomes the columns [0, z] where it
    is a logit; as a ``single`` probability p, [1 − p, p], or their logarithms. Raises :class:`ModelError` for anything
    that is not logits, or of another number of classes.
    """
    if isinstance(outputs, Tensor):
        logits = _columns(outputs, n=n, classes=classes, single=single)
        if logits is not None:
            return Outputs(logits, single=None if logits is outputs else single)
        raise _refusal(outputs, n=n, classes=classes)
    if isinstance(outputs, Outputs):  # of a wrapper of ours, which has read those of the model within
        if outputs.logits.shape == (n, classes or outputs.logits.shape[1]):
            return outputs
        raise _refusal(outputs.logits, n=n, classes=classes)
    place, first = find_logits(outputs)
    logits = _columns(first, n=n, classes=classes, single=single)
    if logits is None:
        raise _refusal(outputs, n=n, classes=classes)
    auxiliary = []
    for name, value in _entries(outputs):
        other = _columns(value, n=n, classes=int(logits.shape[1]), single=single) if value is not first else None
        if other is not None and (isinstance(name, int) or "aux" in str(name)):
            auxiliary.append(other)
    origin = None
    if place != "logits":
        field = "" if isinstance(place, int) else f", {place},"
        origin = f"the model returns a {type(outputs).__name__}: its first tensor{field} is taken as the logits"
    return Outputs(logits, tuple(auxiliary), origin, single=None if logits is first else single)


def find_logits(outputs: object) -> tuple[str | int | None, Tensor | None]:
    """Where in ``outputs`` the logits are, by the rule alone and of whatever shape; (None, None) where none tells."""
    if isinstance(outputs, Tensor):
        return None, outputs
    named = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(named, Tensor):
        return "logits", named
    if not isinstance(outputs, tuple | list):
        return None, None
    tensors = ((name, value) for name, value in _entries(outputs) if isinstance(value, Tensor))
    return next(tensors, (None, None))


def _entries(outputs: object) -> Iterable[tuple[str | int, object]]:
    """What ``outputs`` holds, by name or by place."""
    if isinstance(outputs, Mapping):
        return outputs.items()
    if isinstance(outputs, tuple | list):
        fields = getattr(outputs, "_fields", None)
        return enumerate(outputs) if fields is None else zip(fields, outputs, strict=True)
    return vars(outputs).items() if hasattr(outputs, "__dict__") else ()


def _columns(value: object, *, n: int, classes: int | None, single: Single) -> Tensor | None:
    """``value`` as logits (n, K): itself, or two columns of one; None where it is neither."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    shape = value.shape
    if len(shape) == 2 and shape[0] == n and (shape[1] == classes if classes else shape[1] != 1):
        return value
    if classes not in {None, 2} or shape not in {(n,), (n, 1)}:
        return None
    z = value.reshape(n).to(torch.promote_types(value.dtype, torch.float32))
    if single == "logit":
        return torch.stack([torch.zeros_like(z), z], dim=1)
    if single == "probability":
        return torch.stack([1 - z, z], dim=1)
    most = 1 - torch.finfo(z.dtype).eps  # a probability of one leaves a finite logarithm to the other class
    return torch.stack([torch.log1p(-z.exp().clamp(max=most)), z], dim=1)


def _refusal(outputs: object, *, n: int, classes: int | None) -> ModelError:
    wanted = f"(N, {classes}), a column for each class of the data" if classes else "(N, K)"
    place, first = find_logits(outputs)
    if isinstance(outputs, Tensor):
        got = f"{outputs.dtype} {tuple(outputs.shape)} for {n} images"
        if classes and outputs.ndim == 2 and outputs.is_floating_point() and outputs.shape[1] > max(classes, 2):
            got += "; where the data have some of its classes, name all of them (--classes, as_model(classes=...))"
    else:
        got = type(outputs).__name__
        fits = [
            repr(name)
            for name, value in _entries(outputs)
            if _columns(value, n=n, classes=classes, single="logit") is not None
        ]
        if fits:
            got += f", of which {' and '.join(fits)} would fit: let forward return that alone"
        elif first is not None and first.ndim == 2:
            got += f", of which {place!r} is {first.dtype} {tuple(first.shape)} for {n} images"
    return ModelError("model output", expected=f"one tensor of logits {wanted}", got=got)


def kind_of_single_output(model: nn.Module, images: Tensor) -> Single:
    """What the one output of ``model`` for ``images`` is, by the operation that made it: a sigmoid, a softmax, …

    Values alone cannot tell a probability from a logit between 0 and 1. What no operation shows, such as the output of
    a program that runs outside torch, is a logit.
    """
    mode = _LastOperations()
    with torch.no_grad(), uncompiled(), mode:
        outputs = model(images)
    logits = find_logits(outputs)[1]
    return "logit" if logits is None else mode.kinds.get(logits, "logit")


_KINDS: dict[str, Single] = {
    "sigmoid": "probability",
    "hardsigmoid": "probability",
    "_softmax": "probability",
    "softmax": "probability",
    "log_sigmoid_forward": "log-probability",
    "log_sigmoid": "log-probability",
    "_log_softmax": "log-probability",
    "log_softmax": "log-probability",
}
_MOVES = frozenset(
    "_to_copy _unsafe_view _reshape_alias alias clone contiguous detach expand flatten select slice squeeze "  # noqa: SIM905
    "reshape to transpose unsqueeze view permute t split unbind index_select clamp lift_fresh".split()
)  # results of which are the values that they were given


class _LastOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves the base untyped
    """Remembers which tensors are the result of a sigmoid or a softmax, or a part of such a result."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # guarding this class against torch.compile would import its whole compiler

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        given = self.kinds.get(args[0]) if args and isinstance(args[0], Tensor) else None
        kind = _KINDS.get(name) or (given if name in _MOVES else None)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(tensor, Tensor):
                continue
            if kind is not None:
                self.kinds[tensor] = kind
            elif tensor in self.kinds:  # written over in place
                del self.kinds[tensor]
        return result
