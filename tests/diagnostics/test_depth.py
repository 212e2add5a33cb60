from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from assay.diagnostics.depth import measure_gradient_flow
from assay.errors import ModelError
from assay.records.gradients import GradientFlow


def deep_linear(width: int, depth: int, scale: float) -> nn.Sequential:
    """``depth`` layers z -> scale·z between a flattening and a readout."""
    torch.manual_seed(1)
    layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    for layer in layers:
        nn.init.eye_(layer.weight)
        with torch.no_grad():
            layer.weight.mul_(scale)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 4))


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 36, 4)
    )


def test_leaves_the_model_as_found(images, untouched) -> None:
    model = small().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    with untouched(model):
        measure_gradient_flow(model, images)


def test_leaves_the_model_as_found_after_an_error(images, untouched) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 4))
    with untouched(model), pytest.raises(ModelError):
        measure_gradient_flow(model, images)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_deep_linear_net_decays_by_its_scale(images, scale: float) -> None:
    """∂ℓ/∂z_d = scale^(D−d)·∂ℓ/∂z_D and z_d = scale^d·x exactly."""
    flow = measure_gradient_flow(deep_linear(192, 8, scale), images)
    hidden = flow.layers[:-1]
    for near, far in itertools.pairwise(hidden):
        assert near.gradient_per_sample == pytest.approx(scale * far.gradient_per_sample, rel=1e-5)
        assert near.activation_gradient == pytest.approx(scale * far.activation_gradient, rel=1e-5)
        assert far.activation == pytest.approx(scale * near.activation, rel=1e-5)
    assert [layer.depth for layer in flow.layers] == list(range(9))


def test_agrees_with_autograd_computed_by_hand(images) -> None:
    model = small().eval()
    x = images.images.float().div(255)
    z1 = model[0](x)
    z1.retain_grad()
    z2 = model[1](z1)
    z2.retain_grad()
    logits = model[4](F.relu(z2).flatten(1))
    loss = F.cross_entropy(logits, images.labels)
    loss.backward()
    flow = measure_gradient_flow(model, images, batch_size=13)
    n = len(images)
    assert flow.loss == pytest.approx(loss.item(), rel=1e-5)
    for layer, module, z in zip(flow.layers, (model[0], model[1]), (z1, z2), strict=False):
        assert layer.weight_gradient == pytest.approx(module.weight.grad.norm().item(), rel=1e-4)
        assert layer.relative_gradient == pytest.approx(
            (module.weight.grad.norm() / module.weight.norm()).item(), rel=1e-4
        )
        assert layer.activation == pytest.approx(z.square().mean().sqrt().item(), rel=1e-5)
        assert layer.activation_gradient == pytest.approx(n * z.grad.square().mean().sqrt().item(), rel=1e-4)
        per_sample = (n * z.grad).flatten(1).norm(dim=1).square().mean().sqrt().item()
        assert layer.gradient_per_sample == pytest.approx(per_sample, rel=1e-4)
    assert [layer.name for layer in flow.layers] == ["0", "1", "4"]
    assert [layer.parameters for layer in flow.layers] == [224, 16, 1156]


def test_samples_of_a_sorted_set_are_spread_over_it(images) -> None:
    order = images.labels.argsort(stable=True)
    flow = measure_gradient_flow(small(), images.subset(order), n=24)
    twice = measure_gradient_flow(small(), images.subset(order), n=24)
    assert flow.n == 24
    assert flow == twice


@pytest.mark.parametrize("kind", ["module", "function", "clamp"])
def test_dead_units_are_counted_where_a_rectifier_follows(images, kind: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.fc, self.act = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            act = {"module": self.act, "function": F.relu, "clamp": lambda z: z.clamp(min=0)}[kind]
            return self.fc(act(self.conv(x)).flatten(1))

    model = Net()
    with torch.no_grad():
        model.conv.bias.copy_(torch.tensor([9.0, 9, 9, -9, 9, -9, 9, 9]))
    conv, fc = measure_gradient_flow(model, images).layers
    assert conv.dead == pytest.approx(2 / 8)
    assert fc.dead is None


def test_a_shared_module_counts_all_its_calls_once(images) -> None:
    shared = nn.Linear(192, 192)
    model = nn.Sequential(nn.Flatten(), shared, nn.Tanh(), shared, nn.Linear(192, 4))
    layers = measure_gradient_flow(model, images).layers
    assert [(layer.name, layer.calls) for layer in layers] == [("1", 2), ("4", 1)]


def test_modules_whose_output_is_not_a_tensor(images) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc = nn.LSTM(24, 16, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out, _ = self.lstm(x.transpose(1, 2).flatten(2))
            return self.fc(out[:, -1])

    layers = measure_gradient_flow(Rows(), images).layers
    assert [layer.name for layer in layers] == ["lstm", "fc"]
    assert layers[0].activation_gradient > 0


def test_attention_parametrized_and_bare_parameters_are_credited_to_what_runs(images) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
            self.fc = parametrizations.weight_norm(nn.Linear(24, 4))
            self.gain = nn.Parameter(torch.ones(()))
            self.list = nn.ParameterList([nn.Parameter(torch.ones(24))])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.transpose(1, 2).flatten(2)
            return self.fc(self.attention(x, x, x)[0].mean(1) * self.gain + self.list[0])

    model = Net()
    flow = measure_gradient_flow(model, images)
    by_name = {layer.name: layer.parameters for layer in flow.layers}
    assert by_name == {
        "attention": sum(p.numel() for p in model.attention.parameters()),
        "fc": sum(p.numel() for p in model.fc.parameters()),
        "(model)": 25,
    }


def test_frozen_parameters_take_part_and_cut_paths_are_told(images) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head, self.spare = nn.Linear(192, 16), nn.Linear(16, 4), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.stem(x.flatten(1)).detach())

    model = Cut()
    model.head.weight.requires_grad_(False)
    flow = measure_gradient_flow(model, images)
    stem, head = flow.layers
    assert (stem.reached, stem.weight_gradient, stem.activation_gradient) == (False, 0.0, 0.0)
    assert head.reached
    assert head.weight_gradient > 0
    assert flow.unused == ("stem.weight", "stem.bias", "spare.weight", "spare.bias")


@pytest.mark.parametrize(
    ("break_it", "where"),
    [
        (lambda m: m[4].weight.data.__setitem__((0, 0), torch.nan), "4 (parameter)"),
        (lambda m: m[0].weight.data.__setitem__((0, 0, 0, 0), torch.inf), "0 (parameter)"),
        (lambda m: m[1].running_var.fill_(-1.0), "1 (activation)"),
    ],
    ids=["nan in the head", "infinite stem", "overflow in the middle"],
)
def test_the_first_non_finite_layer_is_located(images, break_it, where: str) -> None:
    model = small()
    break_it(model)
    flow = measure_gradient_flow(model, images)
    assert flow.first_non_finite == where
    name = where.split(maxsplit=1)[0]
    assert next(layer for layer in flow.layers if layer.name == name).non_finite > 0
    restored = GradientFlow.model_validate_json(flow.model_dump_json())
    assert restored.model_dump_json() == flow.model_dump_json()


def test_a_gradient_that_is_not_finite_is_located_too(images) -> None:
    """√|z| at z = 0 is finite and its derivative is not."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(192, 4, bias=False), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.fc(x.flatten(1)).sqrt())

    model = Root()
    nn.init.zeros_(model.fc.weight)
    assert measure_gradient_flow(model, images).first_non_finite == "fc (gradient)"


def test_a_healthy_model_has_nothing_non_finite(images) -> None:
    flow = measure_gradient_flow(small(), images)
    assert flow.first_non_finite is None
    assert all(layer.non_finite == 0 and math.isfinite(layer.activation_gradient) for layer in flow.layers)


def test_models_that_cannot_be_differentiated_are_refused_in_one_line(images) -> None:
    class NoGrad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(192, 4)

        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.flatten(1))

    with pytest.raises(ModelError, match="expected a model whose loss can be differentiated, got an output cut off"):
        measure_gradient_flow(NoGrad(), images)

    class Bare(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :4]

    with pytest.raises(ModelError, match="expected layers with parameters"):
        measure_gradient_flow(Bare(), images)
