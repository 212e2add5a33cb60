"""A faster copy of a model that gives the same answers: BatchNorm folded into the layers before it.

In evaluation mode BatchNorm is the affine map y ↦ γ(y − μ)/√(σ² + ε) + β, and an affine map after a linear layer is one
linear layer: W ← W·s, b ← (b − μ)·s + β with s = γ/√(σ² + ε). The copy answers the attack's thousands of questions; it
is used only after it has been compared with the original, and the original keeps the last word.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # of the range of the logits; float32 rounding alone is about 1.5e-5

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LINEAR = (*CONVOLUTIONS, nn.Linear)


def fold_batch_norm(model: nn.Module, example: Tensor, *, tolerance: float = TOLERANCE) -> tuple[nn.Module, int]:
    """A copy with every foldable BatchNorm folded, and how many were; ``(model, 0)`` where that is not possible.

    ``model`` must be in evaluation mode. Which layer feeds which is observed on ``example`` (B, C, H, W), so any Python
    in ``forward`` is fine. The copy is kept only if its logits on ``example`` differ by at most ``tolerance`` of their
    range and every prediction is equal.
    """
    try:
        folded = copy.deepcopy(model)
        pairs = _adjacent(folded, example)
        for layer, norm in pairs:
            _fold(layer, norm)
            _replace(folded, norm)
        if pairs and agrees(folded, model, example, tolerance=tolerance):
            return folded, len(pairs)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        pass  # a model that cannot be copied, or that reads the norm it lost: the original serves as well, only slower
    return model, 0


def agrees(copied: nn.Module, model: nn.Module, example: Tensor, *, tolerance: float = TOLERANCE) -> bool:
    """Whether the logits agree within ``tolerance`` of their range, with equal predictions."""
    with torch.no_grad():
        ours, theirs = copied(example).double(), model(example).double()
    spread = float(theirs.max() - theirs.min())
    close = float((ours - theirs).abs().max()) <= tolerance * max(spread, torch.finfo(torch.float32).tiny)
    return close and bool(torch.equal(ours.argmax(dim=1), theirs.argmax(dim=1)))


def _adjacent(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """(layer, norm) pairs in which the norm reads the very tensor that the layer wrote, each called once."""
    written: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensors, so that no id is given out twice
    found: list[tuple[nn.Module, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, _LINEAR):
            written[id(output)] = (module, output)
        elif inputs and id(inputs[0]) in written:
            found.append((written[id(inputs[0])][0], module))

    watched = [module for module in model.modules() if isinstance(module, (*_LINEAR, *_NORMS))]
    handles = [module.register_forward_hook(note) for module in watched]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (layer, norm)
        for layer, norm in found
        if calls[layer] == calls[norm] == 1 and _is_plain(layer) and _is_plain(norm) and _has_statistics(norm)
    ]


def _is_plain(module: nn.Module) -> bool:
    """No parametrization and no hook that could recompute or observe the weight."""
    return not (hasattr(module, "parametrizations") or module._forward_pre_hooks or module._forward_hooks)


def _has_statistics(norm: nn.Module) -> bool:
    return not norm.training and getattr(norm, "running_mean", None) is not None


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    weight, bias = layer.weight, layer.bias
    mean, variance = norm.running_mean, norm.running_var
    assert isinstance(weight, Tensor)
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    scale = (variance.double() + float(norm.eps)).rsqrt()  # type: ignore[arg-type]
    shift = torch.zeros_like(scale)
    if isinstance(norm.weight, Tensor):
        scale = scale * norm.weight.detach().double()
    if isinstance(norm.bias, Tensor):
        shift = norm.bias.detach().double()
    before = bias.detach().double() if isinstance(bias, Tensor) else torch.zeros_like(scale)
    rows = scale.reshape(-1, *[1] * (weight.ndim - 1))
    layer.weight = nn.Parameter((weight.detach().double() * rows).to(weight), requires_grad=False)
    layer.bias = nn.Parameter(((before - mean.double()) * scale + shift).to(weight), requires_grad=False)


def _replace(model: nn.Module, norm: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is norm:
                setattr(parent, name, nn.Identity())
