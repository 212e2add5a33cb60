"""Weight-decay groups: by module type, each parameter once, nothing left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from assay.errors import ModelError
from assay.report.terminal.model import print_decay_groups
from assay.training.optimizers import build_optimizers
from assay.training.param_groups import ROLES, audit_optimizer, measure_decay_groups, split_parameters
from assay.training.sections import CHOICES


def names(model: nn.Module) -> dict[str, list[str]]:
    split = split_parameters(model)
    return {role: [name for name, _ in split.of(role)] for role in ROLES}


def test_every_batch_norm_of_torchvision_resnet18_is_found_where_a_search_for_bn_misses_three() -> None:
    torchvision = pytest.importorskip("torchvision")
    record = measure_decay_groups(torchvision.models.resnet18(), weight_decay=5e-4)
    norm, bias, weight = record.groups
    assert len(norm.names) == 2 * 20
    assert norm.parameters == 2 * 4800
    assert bias.names == ("fc.bias",)
    assert weight.parameters == 11_689_512 - 9600 - 1000
    assert [group.weight_decay for group in record.groups] == [0.0, 0.0, 5e-4]
    everything = measure_decay_groups(torchvision.models.resnet18(), weight_decay=5e-4, decayed=("norm", "weight"))
    assert [group.weight_decay for group in everything.groups] == [5e-4, 0.0, 5e-4]
    assert record.missed_by_name == tuple(
        f"layer{i}.0.downsample.1.{leaf}" for i in (2, 3, 4) for leaf in ("weight", "bias")
    )


class SmallRMSNorm(nn.Module):
    """A norm that shares no base class with torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))


class ConvNorm(nn.Module):
    """Called a norm, but what it owns is a convolution's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 4, 3, 3))


CASES = {
    "linear": (nn.Linear(3, 2), {"norm": [], "bias": ["bias"], "weight": ["weight"]}),
    "recurrent": (
        nn.LSTM(3, 2),
        {"norm": [], "bias": ["bias_ih_l0", "bias_hh_l0"], "weight": ["weight_ih_l0", "weight_hh_l0"]},
    ),
    "attention": (
        nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {
            "norm": [],
            "bias": ["in_proj_bias", "bias_k", "bias_v", "out_proj.bias"],
            "weight": ["in_proj_weight", "out_proj.weight"],
        },
    ),
    "layer norm": (nn.Sequential(nn.LayerNorm([2, 3])), {"norm": ["0.weight", "0.bias"], "bias": [], "weight": []}),
    "group norm": (nn.GroupNorm(2, 4), {"norm": ["weight", "bias"], "bias": [], "weight": []}),
    "instance norm": (nn.InstanceNorm2d(4, affine=True), {"norm": ["weight", "bias"], "bias": [], "weight": []}),
    "rms norm": (nn.RMSNorm(4), {"norm": ["weight"], "bias": [], "weight": []}),
    "a class called a norm": (SmallRMSNorm(), {"norm": ["scale"], "bias": [], "weight": []}),
    "a convolution called a norm": (ConvNorm(), {"norm": [], "bias": [], "weight": ["kernel"]}),
    "activation with a parameter": (nn.PReLU(), {"norm": [], "bias": [], "weight": ["weight"]}),
}


@pytest.mark.parametrize(("model", "expected"), CASES.values(), ids=CASES.keys())
def test_roles_follow_the_module(model: nn.Module, expected: dict[str, list[str]]) -> None:
    assert names(model) == expected


def test_a_parametrized_weight_is_still_a_weight_and_its_bias_a_bias() -> None:
    found = names(nn.Sequential(weight_norm(nn.Linear(3, 2)), nn.BatchNorm1d(2)))
    assert found == {
        "norm": ["1.weight", "1.bias"],
        "bias": ["0.bias"],
        "weight": ["0.parametrizations.weight.original0", "0.parametrizations.weight.original1"],
    }


def test_tied_weights_count_once_and_frozen_ones_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    record = measure_decay_groups(model)
    assert [group.names for group in record.groups] == [("2.bias",), ("0.bias", "1.bias"), ("0.weight",)]
    assert (record.frozen, record.tied) == (1, 1)


def test_a_norm_type_of_ones_own_can_be_named() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(2))

    assert [name for name, _ in split_parameters(Scale()).weight] == ["gamma"]
    assert [name for name, _ in split_parameters(Scale(), norm_types=(Scale,)).norm] == ["gamma"]


def test_a_lazy_parameter_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"^1\.weight: expected a parameter with a shape, got a lazy one"):
        split_parameters(nn.Sequential(nn.Linear(3, 2), nn.LazyLinear(2)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["linear", "conv", "norm", "layernorm"]), min_size=1, max_size=6), st.data())
def test_groups_are_a_partition_of_what_is_trainable(kinds: list[str], data: st.DataObject) -> None:
    makers = {
        "linear": lambda: nn.Linear(2, 2),
        "conv": lambda: nn.Conv2d(2, 2, 3, bias=False),
        "norm": lambda: nn.BatchNorm2d(2),
        "layernorm": lambda: nn.LayerNorm(2),
    }
    model = nn.Sequential(*(makers[kind]() for kind in kinds))
    for parameter in model.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
    groups = split_parameters(model).optimizer_groups(0.1)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert all((group["weight_decay"] > 0) == (group["role"] == "weight") for group in groups)


def test_groups_of_the_public_resnet20_cover_its_parameters(shared: Path) -> None:
    from assay.models.sources import load_model

    model = load_model("resnet20", weights=shared / "models" / "resnet20-12fca82f.th")
    record = measure_decay_groups(model)
    assert sum(group.parameters for group in record.groups) == sum(p.numel() for p in model.parameters())


class Scaled(nn.Module):
    """Own parameters of every kind that is no matrix: a scale a channel, tokens, positions, a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.ones(8, 1, 1))
        self.gain = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.token = nn.Parameter(torch.ones(1, 1, 8))
        self.positions = nn.Parameter(torch.ones(1, 5, 8))
        self.temperature = nn.Parameter(torch.ones(()))
        self.mixing = nn.Parameter(torch.ones(8, 4))
        self.table = nn.Parameter(torch.ones(9, 2))

    def no_weight_decay(self) -> set[str]:
        return {"table"}


class GainedConv(nn.Conv2d):
    """A convolution with a gain for every channel of its output."""

    def __init__(self) -> None:
        super().__init__(3, 4, 1, groups=1, bias=False)
        self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))


def test_what_is_no_matrix_or_kernel_of_a_layer_is_named_and_does_not_decay() -> None:
    old_style = nn.Linear(3, 1)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(old_style)
    model = nn.Sequential(Scaled(), nn.PReLU(4), weight_norm(nn.Linear(1, 1)), old_style, GainedConv())
    record = measure_decay_groups(model, weight_decay=0.1)
    why = {each.name: (each.owner, each.shape, each.why) for each in record.other}
    assert why == {
        "0.layer_scale": ("Scaled", (8, 1, 1), "one number a channel"),
        "0.gain": ("Scaled", (1, 8, 1, 1), "one number a channel"),
        "0.token": ("Scaled", (1, 1, 8), "one number a channel"),
        "0.positions": ("Scaled", (1, 5, 8), "shared by all samples"),
        "0.temperature": ("Scaled", (), "a single number"),
        "0.table": ("Scaled", (9, 2), "listed by no_weight_decay()"),
        "1.weight": ("PReLU", (4,), "slopes of a rectifier"),
        "2.parametrizations.weight.original0": ("Linear", (1, 1), "magnitudes of a weight norm"),
        "3.weight_g": ("Linear", (1, 1), "magnitudes of a weight norm"),
        "4.gain": ("GainedConv", (4, 1, 1, 1), "one number a channel"),
    }
    assert record.assumed == ("0.mixing",)
    assert {group.role: group.weight_decay for group in record.groups} == {
        "norm": 0, "bias": 0, "weight": 0.1, "other": 0,
    }  # fmt: skip
    assert record.groups[2].names == (
        "0.mixing", "2.parametrizations.weight.original1", "3.weight_v", "4.weight",
    )  # fmt: skip
    assert sum(group.parameters for group in record.groups) == sum(p.numel() for p in model.parameters())
    console = Console(record=True, width=100)
    print_decay_groups(record, console, names=True)
    text = console.export_text()
    assert "1.weight (4) of PReLU: slopes of a rectifier" in text
    assert "0.mixing" in text


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(3, 1), nn.Linear(1, 1, bias=False), nn.Conv2d(4, 4, 1, groups=4), nn.Embedding(1, 3), nn.LSTM(2, 1)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_matrix_with_the_shape_of_a_vector_is_still_a_weight(layer: nn.Module) -> None:
    assert measure_decay_groups(layer).other == ()


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_recipes_spare_what_is_no_matrix_unless_they_are_told_to(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.PReLU(), nn.Linear(3, 3), nn.Linear(3, 2))
    spared = audit_optimizer(model, build_optimizers(model, CHOICES["optimizer"][name].parse({"weight_decay": 0.1})))
    assert (spared.faults, spared.decayed_others) == (0, ())
    roles = ["norm", "bias", "weight", "other"]
    options = CHOICES["optimizer"][name].parse({"weight_decay": 0.1, "decay_roles": roles})
    assert audit_optimizer(model, build_optimizers(model, options)).decayed_others == ("1.weight",)
    plain = audit_optimizer(model, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
    assert (plain.decayed_others, plain.faults) == (("1.weight",), 3)  # the faults are the biases
    by_type = torch.optim.SGD(split_parameters(model).optimizer_groups(0.1), lr=0.1)
    assert (audit_optimizer(model, by_type).decayed_others, audit_optimizer(model, by_type).faults) == ((), 0)


def test_tokens_positions_and_layer_scales_of_published_networks_are_found() -> None:
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        vit, convnext = models.vit_b_16(), models.convnext_tiny()
    assert [each.name for each in measure_decay_groups(vit).other] == ["class_token", "encoder.pos_embedding"]
    scales = measure_decay_groups(convnext).other
    assert len(scales) == 18
    assert all(each.name.endswith("layer_scale") for each in scales)
    groups = split_parameters(convnext).optimizer_groups(0.05)
    assert sum(len(group["params"]) for group in groups) == len(list(convnext.parameters()))


def test_a_listing_of_the_models_own_that_fails_is_one_error() -> None:
    class Broken(nn.Linear):
        def no_weight_decay(self) -> set[str]:
            raise KeyError("table")

    with pytest.raises(ModelError, match=r"^0\.no_weight_decay\(\): expected the names of parameters, got KeyError"):
        split_parameters(nn.Sequential(Broken(2, 2)))
