"""The audit of an optimizer somebody else made."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.records.training import OptimizerAudit
from assay.training.optimizers import build_optimizers
from assay.training.param_groups import audit_optimizer, split_parameters
from assay.training.sections import MuonOptions


def block() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))


def test_an_optimizer_over_the_three_groups_has_no_fault() -> None:
    model = block()
    optimizer = torch.optim.SGD(split_parameters(model).optimizer_groups(5e-4), lr=0.1)
    audit = audit_optimizer(model, optimizer)
    assert audit == OptimizerAudit()
    assert audit.faults == 0


def test_one_group_for_everything_decays_norms_and_biases() -> None:
    model = block()
    audit = audit_optimizer(model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01))
    assert audit.decayed_norms == ("1.weight", "1.bias")
    assert audit.decayed_biases == ("0.bias",)
    assert audit.faults == 3


def test_matching_bn_in_names_decays_the_downsampling_norms_of_resnet18() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    by_name = {True: [], False: []}
    for name, parameter in model.named_parameters():
        by_name["bn" in name or name.endswith("bias")].append(parameter)
    groups = [{"params": by_name[True], "weight_decay": 0.0}, {"params": by_name[False], "weight_decay": 1e-4}]
    audit = audit_optimizer(model, torch.optim.SGD(groups, lr=0.1))
    assert audit.decayed_norms == tuple(f"layer{i}.0.downsample.1.weight" for i in (2, 3, 4))
    assert audit.decayed_biases == audit.missing == audit.repeated == ()


def test_missing_repeated_foreign_and_frozen_parameters_are_named() -> None:
    model = block()
    model[1].weight.requires_grad_(False)
    stranger = nn.Parameter(torch.zeros(2))
    first = torch.optim.SGD([model[0].weight, model[1].weight, stranger], lr=0.1)
    second = torch.optim.SGD([model[0].weight, model[0].bias], lr=0.1)
    audit = audit_optimizer(model, [first, second])
    assert audit.missing == ("1.bias", "2.weight")
    assert audit.repeated == ("0.weight",)
    assert audit.frozen_held == ("1.weight",)
    assert audit.foreign == 1


def test_weights_spared_while_others_decay_are_named_and_no_decay_at_all_is_no_fault() -> None:
    model = block()
    groups = [{"params": [model[0].weight], "weight_decay": 0.1}, {"params": [model[2].weight], "weight_decay": 0.0}]
    rest = {"params": [model[0].bias, model[1].weight, model[1].bias], "weight_decay": 0.0}
    assert audit_optimizer(model, torch.optim.SGD([*groups, rest], lr=0.1)).undecayed_weights == ("2.weight",)
    assert audit_optimizer(model, torch.optim.SGD(model.parameters(), lr=0.1)).faults == 0


def test_weights_of_fixed_norm_need_no_decay() -> None:
    model = nn.Sequential(*block(), nn.Conv2d(2, 2, 1))
    options = MuonOptions(unit_norm=True, weight_decay=0.1)
    assert audit_optimizer(model, build_optimizers(model, options)).faults == 0
