"""From a recipe's options to torch optimizers over the three parameter groups."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from assay.errors import ModelError
from assay.training.muon import Muon
from assay.training.param_groups import ROLES, Role, split_parameters
from assay.training.recipes import OptimizerOptions


def build_optimizers(model: nn.Module, options: OptimizerOptions) -> tuple[Optimizer, ...]:
    """One optimizer, or two for Muon: every trainable parameter in exactly one group of one of them.

    Each group carries ``peak_lr``, which :func:`set_learning_rate` scales, and its ``role``.
    Raises :class:`ModelError` when nothing is trainable.
    """
    split = split_parameters(model)
    members = {role: [parameter for _, parameter in split.of(role)] for role in ROLES}
    if not any(members.values()):
        raise ModelError("model", expected="at least one trainable parameter", got="none")
    nesterov = options.nesterov and options.momentum > 0
    if options.name == "adamw":
        groups = [_group(role, members[role], options, rate=options.lr) for role in ROLES if members[role]]
        return (AdamW(groups, lr=options.lr, betas=options.betas, weight_decay=0.0),)
    if options.name == "sgd":
        groups = [_group(role, members[role], options, rate=options.lr) for role in ROLES if members[role]]
        return (SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=nesterov),)
    matrices = hidden_matrices(model)
    own = {id(parameter) for parameter in matrices}
    members["weight"] = [parameter for parameter in members["weight"] if id(parameter) not in own]
    side = [_group(role, members[role], options, rate=options.side_lr) for role in ROLES if members[role]]
    optimizers: list[Optimizer] = []
    if matrices:
        group = {"params": matrices, "lr": options.lr, "peak_lr": options.lr, "role": "weight"}
        decay = 0.0 if options.unit_norm else _decay("weight", options)
        optimizers.append(
            Muon(
                [group],
                lr=options.lr,
                momentum=options.momentum,
                nesterov=nesterov,
                weight_decay=decay,
                unit_norm=options.unit_norm,
                newton_schulz_steps=options.newton_schulz_steps,
            )
        )
    if side:
        momentum = options.side_momentum
        optimizers.append(SGD(side, lr=options.side_lr, momentum=momentum, nesterov=options.nesterov and momentum > 0))
    return tuple(optimizers)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trainable weights of convolutions and linear layers but the first and the last of them all.

    The first layer's inputs are pixels and the last one's outputs logits, so neither is an operator between hidden
    spaces, which is what Muon's norm is for.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd | nn.Linear)]
    found = {id(layer.weight): layer.weight for layer in layers[1:-1] if layer.weight.requires_grad}
    ends = {id(layer.weight) for layer in (*layers[:1], *layers[-1:])}
    return [weight for key, weight in found.items() if key not in ends and isinstance(weight, nn.Parameter)]


def set_learning_rate(optimizers: tuple[Optimizer, ...], factor: float) -> None:
    """Every group's learning rate becomes ``factor`` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def update(optimizers: tuple[Optimizer, ...]) -> None:
    """One step of each."""
    for optimizer in optimizers:
        optimizer.step()


def _group(role: Role, parameters: list[nn.Parameter], options: OptimizerOptions, *, rate: float) -> dict[str, Any]:
    factor = options.norm_lr_factor if role == "norm" else 1.0
    decay = _decay(role, options)
    return {
        "params": parameters,
        "lr": rate * factor,
        "peak_lr": rate * factor,
        "weight_decay": decay / factor,  # a step shrinks by lr · decay, which the factor on lr shall not change
        "role": role,
    }


def _decay(role: Role, options: OptimizerOptions) -> float:
    return options.weight_decay if role in options.decay_roles else 0.0
