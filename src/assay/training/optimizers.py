"""From a recipe's options to torch optimizers over the three parameter groups."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from assay.errors import ModelError
from assay.training.param_groups import ROLES, Role, split_parameters
from assay.training.recipes import OptimizerOptions


def build_optimizers(model: nn.Module, options: OptimizerOptions) -> tuple[Optimizer, ...]:
    """One optimizer, or two for Muon: every trainable parameter in exactly one group of one of them.

    Each group carries ``peak_lr``, which :func:`set_learning_rate` scales, and its ``role``.
    Raises :class:`ModelError` when nothing is trainable.
    """
    split = split_parameters(model)
    if not any(split.of(role) for role in ROLES):
        raise ModelError("model", expected="at least one trainable parameter", got="none")
    groups = [_group(role, [p for _, p in split.of(role)], options) for role in ROLES if split.of(role)]
    if options.name == "adamw":
        return (AdamW(groups, lr=options.lr, betas=options.betas, weight_decay=0.0),)
    return (SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov and options.momentum > 0),)


def set_learning_rate(optimizers: tuple[Optimizer, ...], factor: float) -> None:
    """Every group's learning rate becomes ``factor`` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def _group(role: Role, parameters: list[nn.Parameter], options: OptimizerOptions) -> dict[str, Any]:
    factor = options.norm_lr_factor if role == "norm" else 1.0
    decay = options.weight_decay if role == "weight" or options.decay_all else 0.0
    rate = options.lr * factor
    return {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay / factor, "role": role}
