"""Training and evaluation mode: which modules are in which, and what that changes in the logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from assay.data.dataset import ImageDataset
from assay.data.selection import evenly_spaced
from assay.diagnostics.batches import first_tensor, hooked, inputs
from assay.errors import ModelError
from assay.evaluate import call, check_logits
from assay.records.configuration import ModeAudit
from assay.runtime import device_of, preserved

_ACTS = 1e-4  # a relative change of a module's output that rounding between two kernels does not explain


def audit_modes(model: nn.Module, dataset: ImageDataset, *, n: int = 16) -> ModeAudit:
    """Compare the logits of both modes, of two runs in one mode, and of a sample alone and in its batch.

    Which modules depend on their mode is measured: each is run again on its own input with nothing but its own
    ``training`` flag flipped, so an ``F.dropout(x, training=self.training)`` inside any module is found.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: images and labels of K classes.
        n: most samples, evenly spaced over the set, in one batch.

    Returns:
        The record: the modules in each mode, and the gaps between training and evaluation, between two runs, and
        between batch sizes (each max |a − b| over the logits, divided by max − min of the evaluation logits); whether
        outputs look like logits or probabilities; parameters that are frozen or not finite.

    Raises:
        ModelError: the model cannot take the images, or does not return logits (N, K).

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=16)
        >>> model = assay.load_model("resnet8", classes=10, image_shape=data.shape)
        >>> audit = assay.audit_modes(model.eval(), data)
        >>> audit.modules_in_train_mode, audit.repeat_gap, audit.train_eval_gap > 0.01
        ((), 0.0, True)
    """
    data = evenly_spaced(dataset, n)
    handed = {name: module.training for name, module in model.named_modules()}
    images, _ = next(inputs(model, data, batch_size=n))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        with _mode(model, training=False), _turned_over(model) as seen:
            check_logits(call(model, images), n=len(images), classes=len(dataset.classes))
        with _mode(model, training=False):
            logits = call(model, images).float()
            again = call(model, images).float()
            batch_gap, batch_error = _alone(model, images, logits)
        train_gap, train_error = _in_training(model, images, logits)
    never = {name: module for name, module in model.named_modules() if name not in seen.called}
    depends = seen.depends | {name for name, m in never.items() if isinstance(m, (_DropoutNd, _NormBase))}
    return ModeAudit(
        training_flag=model.training,
        modules_in_train_mode=tuple(name or "(model)" for name in handed if name in depends and handed[name]),
        modules_in_eval_mode=tuple(name or "(model)" for name in handed if name in depends and not handed[name]),
        frozen_parameters=sum(p.numel() for p in model.parameters() if not p.requires_grad),
        train_eval_gap=train_gap,
        repeat_gap=_gap(again, logits, logits),
        batch_gap=batch_gap,
        outputs_look_like=_looks_like(logits),
        non_finite_parameters=_non_finite(model),
        idle_dropout=tuple(
            name for name, m in model.named_modules() if isinstance(m, _DropoutNd) and name not in seen.depends
        ),
        train_mode_error=train_error,
        batch_error=batch_error,
    )


@dataclass
class _Seen:
    """Names of the modules that ran, and of those whose own flag changes what they do."""

    called: set[str] = field(default_factory=set)
    depends: set[str] = field(default_factory=set)


@contextmanager
def _turned_over(model: nn.Module) -> Iterator[_Seen]:
    """Run each module once more, on a copy of its input and with the same random numbers, its own flag turned over."""
    names = {m: name for name, m in model.named_modules() if not isinstance(m, torch.jit.ScriptModule)}
    seen = _Seen()
    before: dict[nn.Module, _Call] = {}
    again = False

    def enter(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if not again:
            before[module] = _Call(_copy(args), _copy(kwargs), torch.get_rng_state())

    def leave(module: nn.Module, args: object, kwargs: object, output: object) -> None:
        nonlocal again
        start = None if again else before.pop(module, None)
        if start is None:
            return
        seen.called.add(names[module])
        again = True
        try:
            if names[module] not in seen.depends and _depends(module, start, output):
                seen.depends.add(names[module])
        finally:
            again = False

    handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in names]
    handles += [module.register_forward_hook(leave, with_kwargs=True) for module in names]
    with hooked(*handles):
        yield seen


@dataclass(frozen=True, eq=False)
class _Call:
    """What one module was called with, before anything in it could write over its input."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    random_state: Tensor


def _copy(values: Any) -> Any:
    return pytree.tree_map_only(Tensor, torch.clone, values)


def _depends(module: nn.Module, start: _Call, output: object) -> bool:
    """Whether the module's output or its buffers differ between the two positions of its own flag."""
    expected, after = _copy(output), torch.get_rng_state()
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers(recurse=False)]
    flag = module.training
    torch.set_rng_state(start.random_state)
    module.training = not flag
    try:
        other = module.forward(*start.args, **start.kwargs)
        return _differ(first_tensor(other), first_tensor(expected)) or any(_differ(b, old) for b, old in buffers)
    except (RuntimeError, ValueError):  # batch statistics of a single value, for instance
        return True
    finally:
        module.training = flag
        torch.set_rng_state(after)
        for buffer, old in buffers:
            buffer.copy_(old)


def _differ(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return (a is None) != (b is None) or (a is not None and b is not None)
    if a.numel() == 0:
        return False
    difference, scale = float((a - b).abs().max()), float(b.abs().max())
    if not math.isfinite(difference) or not math.isfinite(scale):
        return not torch.equal(a.nan_to_num(), b.nan_to_num())
    return difference > _ACTS * max(scale, 1e-12)


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """The whole model in one mode, from fixed random numbers, for the length of the block."""
    device = device_of(model)
    with (
        preserved(model, training=training),
        torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"),
    ):
        torch.manual_seed(0)
        yield


def _in_training(model: nn.Module, images: Tensor, logits: Tensor) -> tuple[float | None, str | None]:
    """Some models return more than logits in training mode: their first tensor is compared then."""
    with _mode(model, training=True):
        try:
            out = first_tensor(call(model, images))
        except ModelError as error:
            return None, error.got
    if out is None or out.shape != logits.shape:
        return None, f"an output of another shape: {None if out is None else tuple(out.shape)}"
    return _gap(out.float(), logits, logits), None


def _alone(model: nn.Module, images: Tensor, logits: Tensor) -> tuple[float, str | None]:
    """The first samples one at a time against themselves in the batch."""
    worst = 0.0
    for i in range(min(4, len(images))):
        try:
            alone = call(model, images[i : i + 1])
        except ModelError as error:
            return math.inf, error.got
        if not isinstance(alone, Tensor) or alone.shape != logits[i : i + 1].shape:
            got = tuple(alone.shape) if isinstance(alone, Tensor) else type(alone).__name__
            return math.inf, f"one image alone gives {got} instead of {tuple(logits[i : i + 1].shape)}"
        worst = max(worst, _gap(alone.float(), logits[i : i + 1], logits))
    return worst, None


def _gap(a: Tensor, b: Tensor, scale: Tensor) -> float:
    """max |a − b| / (max − min of ``scale``); entries that are not finite in both, the same way, agree."""
    agree = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(agree, 0.0, (a - b).abs()).max()
    finite = scale[scale.isfinite()]
    span = float(finite.max() - finite.min()) if finite.numel() else 0.0
    if not bool(difference.isfinite()):
        return math.inf
    return float(difference) / span if span > 0 else (0.0 if float(difference) == 0 else math.inf)


def _looks_like(logits: Tensor) -> Literal["logits", "probabilities", "log-probabilities"]:
    rows = logits[logits.isfinite().all(dim=1)].double()
    if len(rows) == 0:
        return "logits"
    if bool((rows >= 0).all()) and bool((rows.sum(dim=1) - 1).abs().max() < 1e-3):
        return "probabilities"
    if bool((rows <= 1e-6).all()) and bool(rows.logsumexp(dim=1).abs().max() < 1e-3):
        return "log-probabilities"
    return "logits"


def _non_finite(model: nn.Module) -> tuple[str, ...]:
    return tuple(
        name
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point() and not bool(tensor.detach().isfinite().all())
    )
