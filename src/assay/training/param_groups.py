"""Weight-decay groups by module type: normalisation parameters, biases, and all the rest.

Matching ``"bn"`` in parameter names misses ``layer2.0.downsample.1`` of a ResNet and every norm called ``norm`` or
``features.3``. The role of a parameter follows from the type of the module that owns it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from assay.arguments import checked
from assay.errors import ModelError
from assay.records.training import DecayGroups, OptimizerAudit, ParameterGroup

Role = Literal["norm", "bias", "weight"]
ROLES: tuple[Role, ...] = ("norm", "bias", "weight")
WEIGHTS: tuple[Role, ...] = ("weight",)
# BatchNorm*, SyncBatchNorm and InstanceNorm* have the base _NormBase in common.
NORM_TYPES: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_NORM_CLASS = re.compile(r"Norm(\dd)?$")  # LlamaRMSNorm, LayerNorm2d: norms that share no base with torch's


@dataclass(frozen=True, eq=False)
class ParameterSplit:
    """The trainable parameters by role, each once; ``frozen`` tensors left out and ``tied`` further names counted."""

    norm: tuple[tuple[str, nn.Parameter], ...]
    bias: tuple[tuple[str, nn.Parameter], ...]
    weight: tuple[tuple[str, nn.Parameter], ...]
    frozen: int
    tied: int

    def of(self, role: Role) -> tuple[tuple[str, nn.Parameter], ...]:
        return {"norm": self.norm, "bias": self.bias, "weight": self.weight}[role]

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for any torch optimizer: ``weight_decay`` on the weights, none on norms and biases."""
        groups: list[dict[str, Any]] = []
        for role in ROLES:
            if members := self.of(role):
                decay = weight_decay if role == "weight" else 0.0
                groups.append({"params": [parameter for _, parameter in members], "weight_decay": decay, "role": role})
        return groups


@checked
def split_parameters(model: nn.Module, *, norm_types: tuple[type[nn.Module], ...] = ()) -> ParameterSplit:
    """Sort every trainable parameter of ``model`` into one of three roles by the type of the module that owns it.

    ``norm``    parameters of normalisation layers (scale and shift), recognised by type; ``norm_types`` adds more
    ``bias``    what its module calls a bias: ``bias``, ``bias_ih_l0``, ``in_proj_bias``, …
    ``weight``  everything else

    A tensor with several names (tied weights) counts once, under its first; frozen ones are left out. That every
    trainable parameter is in exactly one group is asserted. Raises :class:`ModelError` for parameters of lazy modules
    that do not exist yet.
    """
    members: dict[Role, list[tuple[str, nn.Parameter]]] = {role: [] for role in ROLES}
    seen: set[int] = set()
    frozen = tied = 0
    for name, parameter, role in _owned_parameters(model, norm_types):
        if isinstance(parameter, UninitializedParameter):
            raise ModelError(name, expected="a parameter with a shape", got="a lazy one: run a batch through first")
        if id(parameter) in seen:
            tied += 1
            continue
        seen.add(id(parameter))
        if parameter.requires_grad:
            members[role].append((name, parameter))
        else:
            frozen += 1
    covered = {id(parameter) for named in members.values() for _, parameter in named}
    wanted = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert covered == wanted, "every trainable parameter belongs to exactly one group"
    return ParameterSplit(tuple(members["norm"]), tuple(members["bias"]), tuple(members["weight"]), frozen, tied)


@checked
def measure_decay_groups(
    model: nn.Module, *, weight_decay: float | None = None, decayed: Collection[Role] = WEIGHTS
) -> DecayGroups:
    """The three groups of ``model`` as a record; ``weight_decay`` is what the ``decayed`` ones get, where known."""
    split = split_parameters(model)
    return DecayGroups(
        groups=tuple(
            ParameterGroup(
                role=role,
                names=tuple(name for name, _ in split.of(role)),
                parameters=sum(parameter.numel() for _, parameter in split.of(role)),
                weight_decay=None if weight_decay is None else (weight_decay if role in decayed else 0.0),
            )
            for role in ROLES
        ),
        frozen=split.frozen,
        tied=split.tied,
        missed_by_name=tuple(name for name, _ in split.norm if "bn" not in name),
    )


def is_norm(module: nn.Module, *, norm_types: tuple[type[nn.Module], ...] = ()) -> bool:
    """Is this a normalisation layer: one of torch's types, or a class of its own that is called one?"""
    if isinstance(module, (*NORM_TYPES, *norm_types)):
        return True
    own = [parameter for parameter in module.parameters(recurse=False) if parameter.ndim > 1]
    return _NORM_CLASS.search(type(module).__name__) is not None and not own


def _owned_parameters(
    model: nn.Module, norm_types: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, nn.Parameter, Role]]:
    """Every (name, parameter, role), tied names included, in the order of the modules."""
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, parametrize.ParametrizationList):
            continue  # belongs to the module whose tensor it computes
        norm, prefix = is_norm(module, norm_types=norm_types), f"{path}." if path else ""
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield prefix + leaf, parameter, "norm" if norm else _role(leaf, parameter)
        if parametrize.is_parametrized(module):
            tensors = module.parametrizations
            assert isinstance(tensors, nn.ModuleDict)
            for leaf, originals in tensors.items():
                for inner, parameter in originals.named_parameters(recurse=False, remove_duplicate=False):
                    name = f"{prefix}parametrizations.{leaf}.{inner}"
                    yield name, parameter, "norm" if norm else _role(leaf, parameter)


def _role(leaf: str, parameter: nn.Parameter) -> Role:
    vector = isinstance(parameter, UninitializedParameter) or parameter.numel() == max(parameter.shape, default=1)
    called_bias = leaf == "bias" or leaf.startswith("bias_") or leaf.endswith("_bias")
    return "bias" if called_bias and vector else "weight"


@checked
def audit_optimizer(model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> OptimizerAudit:
    """Compare anybody's optimizer (or several that share one model) with the groups of :func:`split_parameters`.

    Decay is checked only where some parameter decays at all: then norms and biases must not, and every weight must.
    Nothing is changed.
    """
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    held: Counter[int] = Counter()
    decay: dict[int, float] = {}
    for group in (group for each in optimizers for group in each.param_groups):
        # Weights that are rescaled to a fixed norm before every step (Muon's unit_norm) cannot grow: that is decay.
        shrinks = float(group.get("weight_decay", 0.0)) or float(group.get("unit_norm", False))
        for parameter in group["params"]:
            held[id(parameter)] += 1
            decay[id(parameter)] = max(decay.get(id(parameter), 0.0), shrinks)
    split = split_parameters(model)
    trainable = [(name, id(parameter), role) for role in ROLES for name, parameter in split.of(role)]
    undecayed = {key for key, value in decay.items() if value == 0} if any(decay.values()) else set()
    return OptimizerAudit(
        missing=tuple(name for name, key, _ in trainable if key not in held),
        repeated=tuple(name for name, key, _ in trainable if held[key] > 1),
        decayed_norms=tuple(name for name, key, role in trainable if role == "norm" and decay.get(key)),
        decayed_biases=tuple(name for name, key, role in trainable if role == "bias" and decay.get(key)),
        undecayed_weights=tuple(name for name, key, role in trainable if role == "weight" and key in undecayed),
        frozen_held=tuple(name for name, p in model.named_parameters() if not p.requires_grad and id(p) in held),
        foreign=len(held.keys() - {id(parameter) for parameter in model.parameters()}),
    )
