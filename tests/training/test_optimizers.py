"""Muon, clipping, averaging: against closed forms, torch's own versions, and the sums written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.errors import ModelError
from assay.training.averaging import WeightAverage
from assay.training.optimizers import (
    Muon,
    build_clip,
    build_optimizers,
    clip_adaptively,
    hidden_matrices,
    orthogonalize,
    set_learning_rate,
)
from assay.training.param_groups import audit_optimizer
from assay.training.sections import (
    CHOICES,
    AverageOptions,
    GradientClip,
    MuonOptions,
    Nothing,
    SGDOptions,
)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_orthogonalizing_keeps_the_singular_vectors_and_evens_the_values(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64))
    r = min(rows, columns)
    values = torch.linspace(1, 0.2, r, dtype=torch.float64) * scale
    result = orthogonalize(left[:, :r] * values @ right[:, :r].T)
    core = left[:, :r].T @ result @ right[:, :r]
    assert (core - core.diagonal().diag()).abs().max() < 1e-8
    assert core.diagonal().min() > 0.6
    assert core.diagonal().max() < 1.3


def test_a_zero_gradient_moves_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_muon_on_a_matrix_equals_torchs() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip(f"torch {torch.__version__} has no Muon to compare with")
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.1, momentum=0.9, weight_decay=0.05)
    other = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.05, adjust_lr_fn="original")
    for step in range(4):
        gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(step + 1))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
        # Torch averages the momentum and iterates in bfloat16: the directions agree, the last digits do not.
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.02)


def test_muon_sees_a_convolution_as_a_matrix() -> None:
    kernel = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    conv, matrix = nn.Parameter(torch.zeros(4, 3, 3, 3)), nn.Parameter(torch.zeros(4, 27))
    conv.grad, matrix.grad = kernel.to(memory_format=torch.channels_last), kernel.reshape(4, 27)
    for parameter in (conv, matrix):
        Muon([parameter], lr=0.1).step()
    torch.testing.assert_close(conv.reshape(4, 27), matrix.data)
    singular = torch.linalg.svdvals(matrix.data / 0.1)
    assert 0.6 < singular.min() < singular.max() < 1.3


def test_unit_norm_rescales_before_the_step() -> None:
    weight = nn.Parameter(torch.full((4, 2), 3.0))
    weight.grad = torch.zeros(4, 2)
    Muon([weight], lr=0.1, unit_norm=True).step()
    assert float(weight.detach().norm()) == pytest.approx(2.0)  # √4


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("frozen", [False, True])
def test_every_optimizer_holds_every_trainable_parameter_once(name: str, frozen: bool) -> None:
    model = network()
    model[2].weight.requires_grad_(not frozen)
    options = CHOICES["optimizer"][name].parse({"weight_decay": 0.01})
    audit = audit_optimizer(model, build_optimizers(model, options))
    assert audit.faults == 0
    assert audit.frozen_held == ()


def test_muon_takes_the_hidden_matrices_only() -> None:
    model = network()
    assert [id(parameter) for parameter in hidden_matrices(model)] == [id(model[2].weight), id(model[3].weight)]
    muon, side = build_optimizers(model, MuonOptions())
    assert sum(len(group["params"]) for group in muon.param_groups) == 2
    assert sum(len(group["params"]) for group in side.param_groups) == 7


def test_the_factor_on_norms_leaves_their_decay_as_it_was() -> None:
    options = SGDOptions.parse(
        {"lr": 0.1, "norm_lr_factor": 8, "decay_roles": ["norm", "bias", "weight"], "weight_decay": 0.01}
    )
    optimizers = build_optimizers(network(), options)
    set_learning_rate(optimizers, 0.5)
    by_role = {group["role"]: group for group in optimizers[0].param_groups}
    assert by_role["norm"]["lr"] == pytest.approx(0.4)
    assert by_role["weight"]["lr"] == pytest.approx(0.05)
    decays = {role: group["lr"] * group["weight_decay"] for role, group in by_role.items()}
    assert decays == pytest.approx(dict.fromkeys(decays, 0.0005))


@pytest.mark.parametrize("roles", [("weight",), ("weight", "norm"), ("bias",), ()])
@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_decay_reaches_the_roles_that_the_recipe_names(name: str, roles: tuple[str, ...]) -> None:
    options = CHOICES["optimizer"][name].parse({"decay_roles": roles, "weight_decay": 0.01})
    groups = [group for optimizer in build_optimizers(network(), options) for group in optimizer.param_groups]
    assert {(group["role"], group["weight_decay"]) for group in groups} == {
        (role, 0.01 if role in roles else 0.0) for role in ("norm", "bias", "weight")
    }


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ModelError, match="model: expected at least one trainable parameter, got none"):
        build_optimizers(nn.Flatten(), SGDOptions())


def with_gradients() -> nn.Sequential:
    model = network()
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.1 * (i + 1))
    return model


def test_clipping_by_norm_and_value_reports_the_norm_before() -> None:
    expected = torch.cat([p.grad.flatten() for p in with_gradients().parameters()]).norm()
    model = with_gradients()
    assert build_clip(model, GradientClip(name="norm", limit=0.5))() == pytest.approx(float(expected))
    assert torch.cat([p.grad.flatten() for p in model.parameters()]).norm() == pytest.approx(0.5, rel=1e-4)
    model = with_gradients()
    assert build_clip(model, GradientClip(name="value", limit=0.25))() == pytest.approx(float(expected))
    assert max(float(p.grad.max()) for p in model.parameters()) == 0.25
    model = with_gradients()
    assert build_clip(model, Nothing())() == pytest.approx(float(expected))
    assert float(model[5].bias.grad[0]) == pytest.approx(0.9)


def test_adaptive_clipping_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0], [30.0, 40.0]]))
    weight.grad = torch.tensor([[6.0, 8.0], [0.0, 1.0], [3.0, 4.0]])
    clip_adaptively([weight], 0.5)
    expected = torch.tensor([[1.5, 2.0], [0.0, 0.5e-3], [3.0, 4.0]])  # rows at most 0.5·max(‖w‖, 10⁻³)
    torch.testing.assert_close(weight.grad, expected)


def test_adaptive_clipping_leaves_vectors_and_the_last_layer_alone() -> None:
    model = with_gradients()
    build_clip(model, GradientClip(name="adaptive", limit=1e-6))()
    assert float(model[5].weight.grad.min()) == pytest.approx(0.8)
    assert float(model[0].bias.grad.min()) == pytest.approx(0.2)
    assert float(model[2].weight.grad.abs().max()) < 1e-4


def test_the_average_is_the_sum_written_out() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, AverageOptions(decay=0.9, every=2))
    expected = 0.0
    for step in range(1, 41):
        model.weight.data.fill_(float(step))
        average.update(step)
        if step % 2 == 0:
            decay = min(0.9, (1 + step // 2) / (10 + step // 2))
            expected = decay * expected + (1 - decay) * step
    assert average.tensors["weight"].flatten().tolist() == pytest.approx([expected, expected])
    with average.applied():
        assert model.weight.flatten().tolist() == pytest.approx([expected, expected])
    assert model.weight.flatten().tolist() == [40.0, 40.0]
    average.apply()
    assert model.weight.flatten().tolist() == pytest.approx([expected, expected])


def test_no_average_holds_nothing() -> None:
    assert WeightAverage(nn.Linear(2, 1), AverageOptions()).tensors == {}
