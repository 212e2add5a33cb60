from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset
from assay.diagnostics.curvature import hessian_product, hutchinson, lanczos, measure_curvature
from assay.records.gradients import Curvature


def tiny() -> ImageDataset:
    draws = torch.Generator().manual_seed(0)
    return ImageDataset(
        torch.randint(0, 256, (24, 1, 2, 2), generator=draws, dtype=torch.uint8), torch.arange(24) % 3, ("a", "b", "c")
    )


def full_hessian(model: nn.Module, data: ImageDataset) -> torch.Tensor:
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([s.numel() for s in shapes])
        values = {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, values, data.images.float() / 255), data.labels)

    return torch.autograd.functional.hessian(loss, torch.cat([p.detach().flatten() for p in model.parameters()]))


@pytest.mark.parametrize("hidden", [None, 5], ids=["softmax regression", "two layers"])
def test_matches_the_full_hessian(hidden: int | None, untouched) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 3)] if hidden is None else [nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)]
    model, data = nn.Sequential(nn.Flatten(), *layers), tiny()
    values = torch.linalg.eigvalsh(full_hessian(model, data)).flip(0)
    with untouched(model):
        curvature = measure_curvature(model, data, iterations=60, batch_size=7, probes=400)
    assert curvature.eigenvalues == pytest.approx(values[:3].tolist(), rel=1e-3, abs=1e-4)
    assert curvature.smallest == pytest.approx(float(values[-1]), abs=1e-3)
    assert curvature.residual < 1e-3
    assert abs(curvature.trace - float(values.sum())) < 4 * curvature.trace_error + 1e-6
    assert curvature.critical_learning_rate == pytest.approx(2 / float(values[0]), rel=1e-3)
    assert Curvature.model_validate_json(curvature.model_dump_json()) == curvature


def test_gradient_descent_is_stable_below_the_critical_rate_and_not_above() -> None:
    """On L = ½ Σ h_i w_i² the Hessian is diag(h), and |1 − η·max h| decides."""
    h = torch.tensor([4.0, 1.0, 0.25])
    w = nn.Parameter(torch.ones(3))
    product = hessian_product([lambda: 0.5 * (h * w.square()).sum()], [w])
    values, residual, _ = lanczos(product, 3, iterations=3, seed=0, like=w)
    assert values == pytest.approx([4.0, 1.0, 0.25], rel=1e-5)
    assert residual < 1e-5
    trace, error = hutchinson(product, 3, probes=5, seed=0, like=w)
    assert (trace, error) == (pytest.approx(5.25), pytest.approx(0.0, abs=1e-6))  # exact for a diagonal matrix
    for rate, stable in ((0.98 * 2 / values[0], True), (1.02 * 2 / values[0], False)):
        x = torch.ones(3)
        for _ in range(400):
            x = x - rate * h * x
        assert (float(x.norm()) < 1) is stable


def test_a_flat_loss_has_no_critical_rate() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (0 * self.w.sum() + x.flatten(1).sum(1, keepdim=True)) * torch.ones(3)

    assert measure_curvature(Constant(), tiny()).critical_learning_rate == math.inf
