from __future__ import annotations

import math

import pytest
import torch

from assay.errors import OptionError
from assay.lowrank.factorization import factorize
from assay.lowrank.gauge import (
    Factors,
    apply_gauge,
    canonical,
    condition_of_scaling,
    product_svd,
    same_solution,
    sharpness_of_scaling,
)
from assay.lowrank.landscape import Hessian


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def factors() -> Factors:
    return Factors(draw(9, 3), draw(3, 7, seed=1))


@pytest.mark.parametrize("form", ["left", "right", "balanced"])
def test_a_canonical_form_is_the_same_for_every_gauge(form: str, factors: Factors) -> None:
    one = canonical(factors.A, factors.B, form=form)
    moved = apply_gauge(factors.A, factors.B, draw(3, 3, seed=5))
    two = canonical(moved.A, moved.B, form=form)
    assert torch.allclose(one.A, two.A, atol=1e-9) and torch.allclose(one.B, two.B, atol=1e-9)
    assert torch.allclose(one.A @ one.B, factors.A @ factors.B)
    sigma = torch.linalg.svdvals(factors.A @ factors.B)[:3]
    eye = torch.eye(3, dtype=torch.float64)
    grams = {"left": (eye, torch.diag(sigma**2)), "right": (torch.diag(sigma**2), eye)}
    left, right = grams.get(form, (torch.diag(sigma), torch.diag(sigma)))
    assert torch.allclose(one.A.T @ one.A, left, atol=1e-9) and torch.allclose(one.B @ one.B.T, right, atol=1e-9)
    for column in one.A.T:
        assert column[column.abs().argmax()] > 0


def test_the_sign_does_not_flip_when_two_entries_are_equally_large() -> None:
    a = torch.tensor([[1.0], [-1.0]]).double()
    b = torch.ones(1, 2).double()
    assert float(canonical(a, b).A[0, 0]) > 0
    assert float(canonical(-a, -b).A[0, 0]) > 0


def test_product_svd_is_the_svd_of_the_product(factors: Factors) -> None:
    u, s, v = product_svd(factors.A, factors.B)
    assert torch.allclose(u * s @ v.T, factors.A @ factors.B)
    assert torch.allclose(s, torch.linalg.svdvals(factors.A @ factors.B)[:3])


@pytest.mark.parametrize(
    "g", [torch.zeros(3, 3), torch.ones(3, 3), torch.eye(2), torch.full((3, 3), math.nan)], ids=str
)
def test_a_gauge_must_be_invertible_and_fit(g: torch.Tensor, factors: Factors) -> None:
    with pytest.raises(OptionError, match="G"):
        apply_gauge(factors.A, factors.B, g)


def test_same_solution_finds_the_gauge_between_two_factorisations() -> None:
    x = draw(30, 20)
    one = factorize(x, 3, method="exact")
    g = draw(3, 3, seed=2)
    moved = apply_gauge(one.A, one.B, g)
    found = same_solution(one, moved)
    assert found.verdict == "same" and bool(found)
    assert torch.allclose(found.gauge, g)
    assert same_solution(one, factorize(x, 3, method="descent", accuracy=1e-9), tolerance=1e-4).verdict == "same"
    assert same_solution(one, factorize(x + 0.1 * draw(30, 20, seed=7), 3)).verdict == "different"
    assert same_solution(one, factorize(x, 4)).verdict == "different"


def test_ties_are_another_kind_of_non_uniqueness() -> None:
    x = torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0]).double())
    pick = lambda j: Factors(x[:, [0, j]], torch.eye(4, dtype=torch.float64)[[0, j]])  # noqa: E731
    one, two = pick(1), pick(2)
    assert float((x - one.A @ one.B).square().sum()) == float((x - two.A @ two.B).square().sum())
    assert same_solution(one, two).verdict == "tied"
    assert same_solution(one, pick(3)).verdict == "different"


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0, 5.0])
def test_scaling_leaves_the_loss_and_changes_sharpness_as_predicted(scale: float) -> None:
    x = draw(8, 6)
    sigma = torch.linalg.svdvals(x)
    best = factorize(x, 3, method="exact")
    moved = apply_gauge(best.A, best.B, scale * torch.eye(3, dtype=torch.float64))
    values = torch.linalg.eigvalsh(Hessian(x, moved.A, moved.B).matrix())
    assert torch.allclose(moved.A @ moved.B, best.A @ best.B)
    assert float(values[-1]) == pytest.approx(sharpness_of_scaling(float(sigma[0]), scale))
    positive = values[values > 1e-9]
    predicted = condition_of_scaling(float(sigma[0]), float(sigma[2]), float(sigma[3]), scale)
    assert float(values[-1] / positive[0]) == pytest.approx(predicted, rel=1e-6)
