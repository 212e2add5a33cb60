"""Weight-decay groups by module type: normalisation parameters, biases, and all the rest.

Matching ``"bn"`` in parameter names misses ``layer2.0.downsample.1`` of a ResNet and every norm called ``norm`` or
``features.3``. The role of a parameter follows from the type of the module that owns it. Of the rest, what is no
matrix or kernel of a layer (slopes, scales, tokens, position embeddings) is a group of its own, which does not decay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim import Optimizer

from assay.arguments import checked
from assay.errors import ModelError
from assay.models.calls import refusing
from assay.records.training import DecayGroups, OptimizerAudit, OtherParameter, ParameterGroup

Role = Literal["norm", "bias", "weight"]
DecayRole = Literal["norm", "bias", "weight", "other"]
ROLES: tuple[Role, ...] = ("norm", "bias", "weight")
WEIGHTS: tuple[DecayRole, ...] = ("weight",)
# Their weights are matrices and kernels, whatever the sizes: that of Linear(K, 1) has the shape of a vector.
WEIGHT_LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention,
)  # fmt: skip
# BatchNorm*, SyncBatchNorm and InstanceNorm* have the base _NormBase in common.
NORM_TYPES: tuple[type[nn.Module], ...] = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_NORM_CLASS = re.compile(r"Norm(\dd)?$")  # LlamaRMSNorm, LayerNorm2d: norms that share no base with torch's


@dataclass(frozen=True, eq=False)
class ParameterSplit:
    """The trainable parameters by role, each once; ``frozen`` tensors left out and ``tied`` further names counted.

    ``other`` says of some of ``weight``, by name, why each is no matrix or kernel of a layer. ``assumed`` are names of
    matrices whose module is of no type known here; they are taken for weights.
    """

    norm: tuple[tuple[str, nn.Parameter], ...]
    bias: tuple[tuple[str, nn.Parameter], ...]
    weight: tuple[tuple[str, nn.Parameter], ...]
    frozen: int
    tied: int
    other: Mapping[str, OtherParameter] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()

    def of(self, role: Role) -> tuple[tuple[str, nn.Parameter], ...]:
        return {"norm": self.norm, "bias": self.bias, "weight": self.weight}[role]

    def decay_groups(self) -> dict[DecayRole, tuple[tuple[str, nn.Parameter], ...]]:
        """The parameters by what decays alike: those of ``other`` apart from the weights, where there are any."""
        groups: dict[DecayRole, tuple[tuple[str, nn.Parameter], ...]] = {
            "norm": self.norm,
            "bias": self.bias,
            "weight": tuple((name, parameter) for name, parameter in self.weight if name not in self.other),
        }
        if self.other:
            groups["other"] = tuple((name, parameter) for name, parameter in self.weight if name in self.other)
        return groups

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for any torch optimizer: ``weight_decay`` on the weights, none on anything else."""
        return [
            {
                "params": [parameter for _, parameter in members],
                "weight_decay": weight_decay if role == "weight" else 0.0,
                "role": role,
            }
            for role, members in self.decay_groups().items()
            if members
        ]


@checked
def split_parameters(model: nn.Module, *, norm_types: tuple[type[nn.Module], ...] = ()) -> ParameterSplit:
    """Sort every trainable parameter of ``model`` into one of three roles by the type of the module that owns it.

    ``norm``    parameters of normalisation layers (scale and shift), recognised by type; ``norm_types`` adds more
    ``bias``    what its module calls a bias: ``bias``, ``bias_ih_l0``, ``in_proj_bias``, …
    ``weight``  everything else; ``other`` of the result tells which of them are no matrix or kernel of a layer: one
                number a channel or in all, what all samples share ((1, L, D)), and what the model itself lists in a
                method ``no_weight_decay()``

    A tensor with several names (tied weights) counts once, under its first; frozen ones are left out. That every
    trainable parameter is in exactly one group is asserted. Raises :class:`ModelError` for parameters of lazy modules
    that do not exist yet.
    """
    members: dict[Role, list[tuple[str, nn.Parameter]]] = {role: [] for role in ROLES}
    seen: set[int] = set()
    frozen = tied = 0
    other: dict[str, OtherParameter] = {}
    assumed: list[str] = []
    listed = _listed_by_the_model(model)
    for name, leaf, parameter, module, role in _owned_parameters(model, norm_types):
        if isinstance(parameter, UninitializedParameter):
            raise ModelError(name, expected="a parameter with a shape", got="a lazy one: run a batch through first")
        if id(parameter) in seen:
            tied += 1
            continue
        seen.add(id(parameter))
        if not parameter.requires_grad:
            frozen += 1
            continue
        members[role].append((name, parameter))
        if role == "weight":
            if why := _why_no_matrix(module, leaf, parameter) or listed.get(name, ""):
                shape = tuple(parameter.shape)
                other[name] = OtherParameter(
                    name=name, owner=parametrize.type_before_parametrizations(module).__name__, shape=shape, why=why
                )
            elif not isinstance(module, WEIGHT_LAYERS):
                assumed.append(name)
    covered = {id(parameter) for named in members.values() for _, parameter in named}
    wanted = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert covered == wanted, "every trainable parameter belongs to exactly one group"
    norm, bias, weight = (tuple(members[role]) for role in ROLES)
    return ParameterSplit(norm, bias, weight, frozen, tied, other, tuple(assumed))


@checked
def measure_decay_groups(
    model: nn.Module, *, weight_decay: float | None = None, decayed: Collection[DecayRole] = WEIGHTS
) -> DecayGroups:
    """The groups of ``model`` as a record; ``weight_decay`` is what the ``decayed`` ones get, where known."""
    split = split_parameters(model)
    return DecayGroups(
        groups=tuple(
            ParameterGroup(
                role=role,
                names=tuple(name for name, _ in members),
                parameters=sum(parameter.numel() for _, parameter in members),
                weight_decay=None if weight_decay is None else (weight_decay if role in decayed else 0.0),
            )
            for role, members in split.decay_groups().items()
        ),
        frozen=split.frozen,
        tied=split.tied,
        missed_by_name=tuple(name for name, _ in split.norm if "bn" not in name),
        other=tuple(split.other.values()),
        assumed=split.assumed,
    )


def is_norm(module: nn.Module, *, norm_types: tuple[type[nn.Module], ...] = ()) -> bool:
    """Is this a normalisation layer: one of torch's types, or a class of its own that is called one?"""
    if isinstance(module, (*NORM_TYPES, *norm_types)):
        return True
    own = [parameter for parameter in module.parameters(recurse=False) if parameter.ndim > 1]
    return _NORM_CLASS.search(type(module).__name__) is not None and not own


def _owned_parameters(
    model: nn.Module, norm_types: tuple[type[nn.Module], ...]
) -> Iterator[tuple[str, str, nn.Parameter, nn.Module, Role]]:
    """Every (name, name within its module, parameter, module, role), tied names included, in the order of modules."""
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, parametrize.ParametrizationList):
            continue  # belongs to the module whose tensor it computes
        norm, prefix = is_norm(module, norm_types=norm_types), f"{path}." if path else ""
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield prefix + leaf, leaf, parameter, module, "norm" if norm else _role(leaf, parameter)
        if parametrize.is_parametrized(module):
            tensors = module.parametrizations
            assert isinstance(tensors, nn.ModuleDict)
            for leaf, originals in tensors.items():
                for inner, parameter in originals.named_parameters(recurse=False, remove_duplicate=False):
                    path_within = f"parametrizations.{leaf}.{inner}"
                    role = "norm" if norm else _role(leaf, parameter)
                    yield prefix + path_within, path_within, parameter, module, role


def _listed_by_the_model(model: nn.Module) -> dict[str, str]:
    """The names of parameters that a module's own ``no_weight_decay()`` returns, as models of timm have it."""
    names: dict[str, str] = {}
    for path, module in model.named_modules():
        method = getattr(module, "no_weight_decay", None)
        if callable(method):
            with refusing(module, where=f"{path or 'model'}.no_weight_decay()", expected="the names of parameters"):
                names.update((f"{path}.{name}" if path else name, "listed by no_weight_decay()") for name in method())
    return names


def _why_no_matrix(module: nn.Module, leaf: str, parameter: nn.Parameter) -> str:
    """Why this is no matrix or kernel of a layer, by type and shape; empty if it is one, or may be."""
    if isinstance(module, nn.PReLU):
        return "slopes of a rectifier"
    if leaf in _magnitudes(module):
        return "magnitudes of a weight norm"
    vector = parameter.numel() == max(parameter.shape, default=1)
    if isinstance(module, WEIGHT_LAYERS):
        # A torch layer calls its matrices weight…, q_proj_weight, …; a subclass may add a gain for every channel.
        return "one number a channel" if vector and (parameter.ndim <= 1 or "weight" not in leaf) else ""
    if vector:
        return "a single number" if parameter.numel() == 1 else "one number a channel"
    return "shared by all samples" if parameter.ndim >= 3 and parameter.shape[0] == 1 else ""


def _magnitudes(module: nn.Module) -> set[str]:
    """Names, within the module, of the lengths g in w = g·v/‖v‖."""
    names = {f"{hook.name}_g" for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm)}
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for leaf, steps in module.parametrizations.items():
            if isinstance(steps, nn.ModuleList) and isinstance(steps[0], parametrizations._WeightNorm):
                names.add(f"parametrizations.{leaf}.original0")
    return names


def _role(leaf: str, parameter: nn.Parameter) -> Role:
    vector = isinstance(parameter, UninitializedParameter) or parameter.numel() == max(parameter.shape, default=1)
    called_bias = leaf == "bias" or leaf.startswith("bias_") or leaf.endswith("_bias")
    return "bias" if called_bias and vector else "weight"


@checked
def audit_optimizer(model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> OptimizerAudit:
    """Compare anybody's optimizer (or several that share one model) with the groups of :func:`split_parameters`.

    Decay is checked only where some parameter decays at all: then norms and biases must not, and every weight must.
    What is no matrix or kernel of a layer is named where it decays, which is no fault: practice differs. Nothing is
    changed.
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
    trainable = [
        (name, id(parameter), role) for role, all_of in split.decay_groups().items() for name, parameter in all_of
    ]
    undecayed = {key for key, value in decay.items() if value == 0} if any(decay.values()) else set()
    return OptimizerAudit(
        missing=tuple(name for name, key, _ in trainable if key not in held),
        repeated=tuple(name for name, key, _ in trainable if held[key] > 1),
        decayed_norms=tuple(name for name, key, role in trainable if role == "norm" and decay.get(key)),
        decayed_biases=tuple(name for name, key, role in trainable if role == "bias" and decay.get(key)),
        decayed_others=tuple(name for name, key, role in trainable if role == "other" and decay.get(key)),
        undecayed_weights=tuple(name for name, key, role in trainable if role == "weight" and key in undecayed),
        frozen_held=tuple(name for name, p in model.named_parameters() if not p.requires_grad and id(p) in held),
        foreign=len(held.keys() - {id(parameter) for parameter in model.parameters()}),
    )
