"""Attention maps of any model that uses torch's attention: entropy, distance, rollout, and the blocks around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from assay.records.recurrence import AttentionLayer, AttentionPaths
from assay.runtime import hooked


@dataclass(eq=False)
class AttentionMaps:
    """Square attention maps (N, heads, T, T) in the order of their computation, and the blocks around them.

    ``blocks`` holds, by the place of its map, a name, its output with the gradient retained, and the axis of time.
    """

    layers: list[tuple[str, Tensor]] = field(default_factory=list)
    blocks: dict[int, tuple[str, Tensor, int]] = field(default_factory=dict)


@contextmanager
def record_attention(model: nn.Module) -> Iterator[AttentionMaps]:
    """Record every ``F.scaled_dot_product_attention`` and ``nn.MultiheadAttention`` the model runs inside the block.

    A block is the outermost module whose first input and output have one shape (N, T, D) and that holds exactly one
    of them.
    """
    maps = AttentionMaps()
    starts: dict[nn.Module, int] = {}
    running: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        starts[module] = len(maps.layers)
        running.append(names[module])

    def leave(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        running.pop()
        first = args[0] if args else None
        if not isinstance(output, Tensor) or output.ndim != 3 or not output.requires_grad:
            return
        alone = len(maps.layers) - starts[module] == 1
        if alone and isinstance(first, Tensor) and first.shape == output.shape:
            output.retain_grad()
            length = maps.layers[-1][1].shape[-1]
            maps.blocks[len(maps.layers) - 1] = (names[module], output, 1 if output.shape[1] == length else 0)

    def record(weights: Tensor) -> None:
        if weights.shape[-1] == weights.shape[-2]:
            maps.layers.append((running[-1] if running else "attention", weights.detach()))

    handles = [module.register_forward_pre_hook(enter) for module in names]
    handles += [module.register_forward_hook(leave, always_call=True) for module in names]
    with hooked(*handles), _AttentionMode(record):
        yield maps


class _AttentionMode(TorchFunctionMode):
    """Computes the weights a second time, as the fused kernels do not return them."""

    def __init__(self, record: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            need_weights, averaged = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
            output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            assert weights is not None
            self.record(weights if weights.ndim == 4 else weights.unsqueeze(0))
            if not need_weights:
                return output, None
            return output, weights.mean(dim=-3) if averaged else weights
        if func is F.scaled_dot_product_attention:
            self.record(attention_weights(*args, **kwargs))
        return func(*args, **kwargs)


@torch.no_grad()
def attention_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q kᵀ·scale + mask), (…, T, S); the arguments are those of torch's own function."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.transpose(-2, -1) * (scale if scale is not None else 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~visible, -torch.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = scores.softmax(dim=-1)
    return weights if weights.ndim == 4 else weights.reshape(-1, 1, *weights.shape[-2:])


def describe_attention(maps: AttentionMaps) -> AttentionPaths:
    """Entropy and distance of each layer's heads, and the rollout of the layers whose lengths agree with the first."""
    layers, length = [], maps.layers[0][1].shape[-1]
    rollout = torch.eye(length, dtype=torch.float64)
    for i, (name, weights) in enumerate(maps.layers):
        A = weights.cpu().double()
        T = A.shape[-1]
        entropy = -(A * A.clamp_min(1e-300).log()).sum(-1)  # (N, heads, T)
        ceiling = (A > 0).sum(-1).clamp_min(1).double().log().mean().clamp_min(1e-12)
        steps = torch.arange(T, dtype=torch.float64)
        distance = (A * (steps[:, None] - steps[None]).abs()).sum(-1)
        mean_entropy = entropy.mean(dim=(0, 2))
        layers.append(
            AttentionLayer(
                name=f"{name}#{i}",
                heads=A.shape[1],
                length=T,
                entropy=tuple(mean_entropy.tolist()),
                relative_entropy=tuple((mean_entropy / ceiling).tolist()),
                distance=tuple(distance.mean(dim=(0, 2)).tolist()),
            )
        )
        if length == T:
            mixed = 0.5 * (A.mean(dim=(0, 1)) + torch.eye(T, dtype=torch.float64))
            rollout = mixed @ rollout
    return AttentionPaths(layers=tuple(layers), rollout=tuple(rollout[-1].tolist()), path=1)
