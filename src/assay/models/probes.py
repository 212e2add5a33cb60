"""Questions about a model that several measurements share: its mode, its repeatability, the kind of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from assay.errors import ModelError
from assay.runtime import device_of, preserved
from assay.runtime.model_state import remember_tensor

_SAME = 1e-4  # a relative change of a module's output up to this may be the rounding of another kernel
_ALONE = 4  # samples evaluated one at a time

OutputKind = Literal["logits", "probabilities", "log-probabilities"]


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """The whole model in one mode, from fixed random numbers, for the length of the block."""
    devices = [device_of(model)] if device_of(model).type == "cuda" else []
    with preserved(model, training=training), torch.random.fork_rng(devices, device_type="cuda"):
        torch.manual_seed(0)
        yield


@dataclass
class ModeProbe:
    """Names of the modules that ran, and of those whose own ``training`` flag changes what they do."""

    called: set[str] = field(default_factory=set)
    depends: set[str] = field(default_factory=set)

    def dependent(self, model: nn.Module) -> set[str]:
        """Modules that the mode changes: as measured and, among those that did not run, by their kind."""
        known = {name for name, module in model.named_modules() if isinstance(module, (_DropoutNd, _NormBase))}
        return self.depends | (known - self.called)


@contextmanager
def probe_modes(model: nn.Module) -> Iterator[ModeProbe]:
    """While the model runs, run each module again on a copy of its input, with its own flag inverted.

    Both runs draw the same random numbers. So a ``F.dropout(x, training=self.training)`` in any module is found.
    """
    names = {m: name for name, m in model.named_modules() if not isinstance(m, torch.jit.ScriptModule)}
    probe = ModeProbe()
    before: dict[nn.Module, _Call] = {}
    again = False

    def enter(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if not again:
            before[module] = _Call(_copy(args), _copy(kwargs), torch.get_rng_state())

    def leave(module: nn.Module, args: object, kwargs: object, output: object) -> None:
        nonlocal again
        if again or module not in before:
            return
        start = before.pop(module)
        probe.called.add(names[module])
        again = True
        try:
            if names[module] not in probe.depends and _depends(module, start, output):
                probe.depends.add(names[module])
        finally:
            again = False

    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(leave, with_kwargs=True))
        yield probe


class _Call(NamedTuple):
    """What one module was called with, before anything in it could write over its input."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    random_state: Tensor


def _copy(values: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, values)


def _depends(module: nn.Module, start: _Call, output: object) -> bool:
    """Whether the module's output or its buffers differ between the two values of its own flag."""
    expected, after = _copy(output), torch.get_rng_state()
    restores = [remember_tensor(buffer) for buffer in module.buffers(recurse=False)]
    flag = module.training
    torch.set_rng_state(start.random_state)
    module.training = not flag
    try:
        other = module.forward(*start.args, **start.kwargs)
        changed = [restore() for restore in restores]
        return _differ(first_tensor(other), first_tensor(expected)) or any(changed)
    except Exception:  # batch statistics of a single value, for instance
        return True
    finally:
        module.training = flag
        torch.set_rng_state(after)
        for restore in restores:
            restore()


def _differ(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return a is not b  # unless there is none of either
    if a.numel() == 0:
        return False
    difference, scale = float((a - b).abs().max()), float(b.abs().max())
    if not math.isfinite(difference) or not math.isfinite(scale):
        return not torch.equal(a.nan_to_num(), b.nan_to_num())
    return difference > _SAME * max(scale, 1e-12)


def first_tensor(output: object) -> Tensor | None:
    """The first floating tensor of a module's output, however nested (tuple, dict, dataclass with ``logits``)."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    fields = vars(output) if hasattr(output, "__dict__") and not isinstance(output, dict) else output
    leaves = pytree.tree_leaves(fields)
    return next((leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)


def gap_alone(
    forward: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor, *, scale: Tensor | None = None
) -> tuple[float, str | None]:
    """The first samples one at a time against their ``logits`` in the batch; infinite, and why, where that fails.

    ``forward`` raises :class:`ModelError` for a batch that the model cannot take; ``scale`` is that of
    :func:`relative_gap`, ``logits`` by default.
    """
    worst = 0.0
    for i in range(min(_ALONE, len(images))):
        expected = logits[i : i + 1]
        try:
            alone = forward(images[i : i + 1])
        except ModelError as error:
            return math.inf, error.got
        if not isinstance(alone, Tensor) or alone.shape != expected.shape:
            got = tuple(alone.shape) if isinstance(alone, Tensor) else type(alone).__name__
            return math.inf, f"one image alone gives {got} instead of {tuple(expected.shape)}"
        worst = max(worst, relative_gap(alone.to(logits.dtype), expected, logits if scale is None else scale))
    return worst, None


def relative_gap(a: Tensor, b: Tensor, scale: Tensor) -> float:
    """max |a − b| / (max − min of ``scale``); entries that are not finite in both, the same way, agree.

    NaN where they agree and ``scale`` has no finite entry: nothing was compared.
    """
    agree = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(agree, 0.0, (a - b).abs()).max()
    finite = scale[scale.isfinite()]
    if not bool(difference.isfinite()):
        return math.inf
    if finite.numel() == 0:
        return math.nan
    span = float(finite.max() - finite.min())
    return float(difference) / span if span > 0 else (0.0 if float(difference) == 0 else math.inf)


def output_kind(outputs: Tensor) -> OutputKind:
    """Rows (N, K) that sum to one are probabilities, logarithms of such rows log-probabilities, all others logits."""
    rows = outputs[outputs.isfinite().all(dim=1)].cpu().double()
    if len(rows) == 0:
        return "logits"
    if bool((rows >= 0).all()) and bool((rows.sum(dim=1) - 1).abs().max() < 1e-3):
        return "probabilities"
    if bool((rows <= 1e-6).all()) and bool(rows.logsumexp(dim=1).abs().max() < 1e-3):
        return "log-probabilities"
    return "logits"
