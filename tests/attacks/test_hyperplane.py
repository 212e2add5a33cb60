"""The smallest step onto a hyperplane within the bounds, against a general solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from assay.attacks.methods.fab import step_to_hyperplane
from assay.attacks.threat import GEOMETRIES


def solve(x, w, c, norm):
    """The optimal norm by linear or quadratic programming; None where no point inside the bounds lies on the plane."""
    d = len(x)
    ranges = list(zip(-x, 1 - x, strict=True))
    if norm == "l2":
        found = minimize(
            lambda v: v @ v,
            np.zeros(d),
            jac=lambda v: 2 * v,
            bounds=ranges,
            constraints={"type": "eq", "fun": lambda v: w @ v + c, "jac": lambda v: w},
            options={"maxiter": 500, "ftol": 1e-14},
        )
        return float(np.sqrt(found.fun)) if found.success else None
    if norm == "linf":  # minimise t with -t <= v_i <= t
        cost = np.r_[np.zeros(d), 1.0]
        rows = np.block([[np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
        found = linprog(cost, rows, np.zeros(2 * d), [np.r_[w, 0.0]], [-c], bounds=[*ranges, (0, None)])
    else:  # v = p - q with p, q >= 0
        cost = np.ones(2 * d)
        split = [(0, hi) for _, hi in ranges] + [(0, -lo) for lo, _ in ranges]
        found = linprog(cost, A_eq=[np.r_[w, -w]], b_eq=[-c], bounds=split)
    return float(found.fun) if found.success else None


@pytest.mark.parametrize("norm", sorted(GEOMETRIES))
@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_smallest_step_onto_the_plane(norm, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.random(7), rng.normal(size=7)
    w[rng.integers(7)] = 0.0
    c = float(rng.normal() * 0.6)
    d = step_to_hyperplane(
        torch.tensor(x)[None],
        torch.tensor(w)[None],
        torch.tensor([c], dtype=torch.float64),
        norm=norm,
        bounds=(0.0, 1.0),
    )[0].numpy()
    assert ((x + d >= -1e-12) & (x + d <= 1 + 1e-12)).all()
    best = solve(x, w, c, norm)
    if best is None:
        corner = np.where(c * w > 0, -x, 1 - x) * (w != 0)
        assert np.allclose(d, corner)
    else:
        assert w @ d == pytest.approx(-c, abs=1e-8)
        found = float(GEOMETRIES[norm].distance(torch.tensor(d).reshape(1, 1, 1, -1)))
        assert found == pytest.approx(best, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("norm", sorted(GEOMETRIES))
def test_out_of_step_to_hyperplane_means_the_corner_and_tiny_normals_survive(norm):
    x = torch.full((2, 4), 0.5)
    w = torch.tensor([[1.0, -1.0, 2.0, 0.0], [1e-20, -1e-20, 2e-20, 0.0]])
    far = step_to_hyperplane(x, w, torch.tensor([100.0, 1e-18]), norm=norm, bounds=(0.0, 1.0))
    assert torch.allclose(far, torch.tensor([-0.5, 0.5, -0.5, 0.0]).expand(2, 4))
    assert torch.equal(step_to_hyperplane(x, w, torch.zeros(2), norm=norm, bounds=(0.0, 1.0)), torch.zeros(2, 4))
