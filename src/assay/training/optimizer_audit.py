"""Does an optimizer hold what its model needs: every parameter, once, decayed where it should be?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from assay.records.training import OptimizerAudit
from assay.training.param_groups import ROLES, split_parameters


def audit_optimizer(model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> OptimizerAudit:
    """Compare anybody's optimizer (or several that share one model) with the groups of :func:`split_parameters`.

    Decay is judged only where some parameter decays at all: then norms and biases must not, and every weight must.
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
    own = {id(parameter) for parameter in model.parameters()}
    frozen = [(name, id(p)) for name, p in model.named_parameters() if not p.requires_grad]
    decays = any(value > 0 for value in decay.values())
    return OptimizerAudit(
        missing=tuple(name for name, key, _ in trainable if key not in held),
        repeated=tuple(name for name, key, _ in trainable if held[key] > 1),
        decayed_norms=tuple(name for name, key, role in trainable if role == "norm" and decay.get(key, 0.0) > 0),
        decayed_biases=tuple(name for name, key, role in trainable if role == "bias" and decay.get(key, 0.0) > 0),
        undecayed_weights=tuple(
            name for name, key, role in trainable if role == "weight" and decays and decay.get(key) == 0.0
        ),
        frozen_held=tuple(name for name, key in frozen if key in held),
        foreign=sum(1 for key in held if key not in own),
    )
