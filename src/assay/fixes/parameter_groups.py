"""Weight-decay groups by module type in place of names: two optimizers built and audited, nothing trained."""

from __future__ import annotations

import copy

import torch
from torch import nn

from assay.fixes.fix import Change, Fix, Workshop
from assay.records.fixes import Reading
from assay.training.optimizer_audit import audit_optimizer
from assay.training.param_groups import split_parameters

DECAY = 5e-4


def _regroup(shop: Workshop) -> Change:
    model = copy.deepcopy(shop.model)
    by_name = audit_optimizer(model, torch.optim.SGD(_groups_by_name(model), lr=0.1))
    by_type = audit_optimizer(model, torch.optim.SGD(split_parameters(model).optimizer_groups(DECAY), lr=0.1))
    left = len(by_type.decayed_norms)
    return Change(
        "an optimizer built with groups by module type, and audited beside one grouped by names; nothing was trained",
        readings=(
            Reading(name="normalisation tensors that decay", before=len(by_name.decayed_norms), after=left),
            Reading(name="parameters grouped wrongly", before=by_name.faults, after=by_type.faults),
        ),
        status="warn" if by_type.faults else "pass",
        measured=f"{left} normalisation tensors decay, {len(by_name.decayed_norms)} when grouped by name",
        value=float(left),
    )


def _groups_by_name(model: nn.Module) -> list[dict[str, object]]:
    """What training scripts do: parameters with ``bn`` or ``bias`` in their names are exempt."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    exempt = [parameter for name, parameter in named if "bn" in name or "bias" in name]
    rest = [parameter for name, parameter in named if not ("bn" in name or "bias" in name)]
    return [{"params": exempt, "weight_decay": 0.0}, {"params": rest, "weight_decay": DECAY}]


PARAMETER_GROUPS = Fix("parameter groups", "training", _regroup)
