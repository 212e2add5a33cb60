from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.diagnostics.recorder import record_gradients
from assay.errors import ModelError, OptionError
from assay.records.gradients import DepthTrace


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(n: int):
    draws = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 6, generator=draws), torch.randint(0, 3, (16,), generator=draws)) for _ in range(n)]


def test_numbers_are_those_of_autograd_and_of_the_optimizer() -> None:
    """The first step by hand: activation, gradients, and the update lr·‖g‖/‖w‖ of plain SGD."""
    model, (x, y) = small(), batches(1)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    twin = small()
    z1 = twin[0](x)
    z1.retain_grad()
    z2 = twin[2](z1.relu())
    F.cross_entropy(twin[4](z2.tanh()), y).backward()
    with record_gradients(model, optimizer=optimizer) as recorder:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    layer = recorder.summarize().layers[0]
    grads = [p.grad for p in twin[0].parameters()]
    weight = torch.cat([p.detach().flatten() for p in twin[0].parameters()]).norm()
    total = torch.cat([g.flatten() for g in grads]).norm()
    assert layer.activation[0] == pytest.approx(z1.square().mean().sqrt().item(), rel=1e-5)
    assert layer.gradient[0] == pytest.approx(z1.grad.norm().item(), rel=1e-4)
    assert layer.weight_gradient[0] == pytest.approx(total.item(), rel=1e-4)
    assert layer.update[0] == pytest.approx((0.5 * total / weight).item(), rel=1e-4)
    assert layer.dead[0] == pytest.approx((z1.relu().amax(0) == 0).float().mean().item())
    saturated = recorder.summarize().layers[1].saturated
    assert saturated[0] == pytest.approx((z2.tanh().abs() > 0.99).float().mean().item())


def test_samples_the_first_step_and_every_nth_and_leaves_no_hook() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counts = []
    with record_gradients(model, optimizer=optimizer, every=4) as recorder:
        for x, y in batches(10):
            counts.append(sum(len(m._forward_hooks) for m in model.modules()))
            assert recorder.sampling == (counts[-1] > 0)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    record = recorder.summarize()
    assert (record.steps, record.total) == ((1, 5, 9), 10)
    assert [count > 0 for count in counts] == [i % 4 == 0 for i in range(10)]
    assert all(len(layer.gradient) == 3 for layer in record.layers)
    assert sum(len(m._forward_hooks) for m in model.modules()) == 0
    assert all(not p._post_accumulate_grad_hooks for p in model.parameters())
    assert DepthTrace.model_validate_json(record.model_dump_json()) == record


def test_training_is_the_same_with_and_without() -> None:
    def run(*, traced: bool) -> list[torch.Tensor]:
        model = small()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with record_gradients(model, every=1) as recorder:
            for x, y in batches(5):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                if traced:
                    recorder.step()
        return [p.detach() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run(traced=True), run(traced=False), strict=True))


def test_a_number_that_is_not_finite_is_located_and_kept() -> None:
    model = small()
    with record_gradients(model, every=1) as recorder:
        for i, (x, y) in enumerate(batches(4)):
            if i == 2:
                with torch.no_grad():
                    model[2].weight[0, 0] = torch.inf
            F.cross_entropy(model(x), y).backward()
            recorder.step()
    record = recorder.summarize()
    assert record.first_non_finite.endswith("at step 3")
    assert record.non_finite > 0
    assert not math.isfinite(record.layers[1].activation[2])
    assert all(math.isfinite(v) for v in record.layers[1].activation[:2])


def test_shared_layers_and_accumulated_gradients_count_once_and_whole() -> None:
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    (x, _), (x2, _) = batches(2)
    with record_gradients(model) as recorder:
        model(x).square().mean().backward()
        model(x2).square().mean().backward()
        recorder.step()
    (layer,) = recorder.summarize().layers
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in shared.parameters()))
    assert layer.weight_gradient[0] == pytest.approx(total, rel=1e-5)


def test_misuse_is_told_in_one_line() -> None:
    model = small()
    with record_gradients(model) as recorder:
        model(batches(1)[0][0])
    with pytest.raises(ModelError, match=r"record_gradients: expected recorder\.step\(\) at the end of every step"):
        recorder.summarize()
    with record_gradients(model) as recorder:
        for x, _ in batches(2):
            model(x)
            recorder.step()
    with pytest.raises(
        ModelError, match=r"expected a loop that calls loss\.backward\(\), got 2 steps without a gradient"
    ):
        recorder.summarize()
    with pytest.raises(OptionError, match="every: expected at least 1, got 0"), record_gradients(model, every=0):
        pass
    with pytest.raises(ModelError, match="expected layers with parameters"), record_gradients(nn.ReLU()):
        pass


def test_reports_what_it_cost() -> None:
    model = small()
    with record_gradients(model, every=2) as recorder:
        for x, y in itertools.chain(batches(10)):
            F.cross_entropy(model(x), y).backward()
            recorder.step()
    record = recorder.summarize()
    assert record.overhead is not None
    assert record.average_overhead == pytest.approx(record.overhead / 2)


def test_a_look_at_the_model_without_gradients_is_no_step_of_its_training() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record_gradients(model, optimizer=optimizer, every=1) as recorder:
        with torch.no_grad():
            model(torch.full((3, 4), 1e6))
        loss = model(torch.rand(5, 4)).square().mean()
        expected = float(loss.detach()) ** 0.5
        loss.backward()
        optimizer.step()
    (layer,) = recorder.summarize().layers
    assert layer.activation[0] == pytest.approx(expected, rel=1e-5)


def test_squares_of_half_floats_do_not_overflow() -> None:
    model = nn.Linear(4, 400, dtype=torch.float16)
    with torch.no_grad():
        model.weight.fill_(100.0)
        model.bias.zero_()
    with record_gradients(model, every=1) as recorder:
        model(torch.ones(2, 4, dtype=torch.float16)).sum().backward()
        recorder.step()
    (layer,) = recorder.summarize().layers
    assert layer.activation[0] == pytest.approx(400.0)
    assert layer.gradient[0] == pytest.approx(math.sqrt(800))
