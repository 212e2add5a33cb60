from __future__ import annotations

import math

import pytest
import torch

from assay.errors import DataError, OptionError
from assay.lowrank.factorization import factorize
from assay.lowrank.landscape import Hessian, classify, critical_point, draw_paths, measure_landscape, predict_spectrum
from assay.records.factorization import Landscape


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (x - a @ b).square().sum()


@pytest.mark.parametrize("shape", [(4, 3, 2), (3, 5, 2), (2, 2, 1), (1, 4, 1), (3, 3, 3)], ids=str)
def test_the_hessian_in_blocks_is_that_of_autograd(shape: tuple[int, int, int]) -> None:
    m, n, r = shape
    x, a, b = draw(m, n), draw(m, r, seed=1), draw(r, n, seed=2)
    flat = torch.cat([a.flatten(), b.flatten()])
    by_autograd = torch.autograd.functional.hessian(
        lambda v: loss(x, v[: m * r].reshape(m, r), v[m * r :].reshape(r, n)), flat
    )
    hessian = Hessian(x, a, b)
    assert torch.allclose(hessian.matrix(), by_autograd, atol=1e-10)
    u, v = draw(m, r, seed=3), draw(r, n, seed=4)
    direction = torch.cat([u.flatten(), v.flatten()])
    applied = hessian.apply(u, v)
    assert torch.allclose(torch.cat([applied.A.flatten(), applied.B.flatten()]), by_autograd @ direction)
    assert hessian.quadratic_form(u, v) == pytest.approx(float(direction @ by_autograd @ direction))
    lowest, highest = hessian.extreme_eigenvalues()
    values = torch.linalg.eigvalsh(by_autograd)
    assert (lowest, highest) == pytest.approx((float(values[0]), float(values[-1])))


@pytest.mark.parametrize("chosen", [(0, 1), (0, 2), (1, 3), (0,), (2,), ()], ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)], ids=str)
def test_the_predicted_spectrum_is_the_computed_one_at_every_balanced_critical_point(
    shape: tuple[int, int], chosen: tuple[int, ...]
) -> None:
    x = draw(*shape)
    left, sigma, right = torch.linalg.svd(x, full_matrices=False)
    point = critical_point(left, sigma, right.T, rank=2, chosen=chosen)
    computed = torch.linalg.eigvalsh(Hessian(x, point.A, point.B).matrix())
    predicted = predict_spectrum(sigma, shape=shape, rank=2, chosen=chosen)
    assert torch.allclose(computed, predicted, atol=1e-9)
    slope = 2 * (point.A @ point.B - x)
    assert float((slope @ point.B.T).abs().max()) < 1e-9 and float((point.A.T @ slope).abs().max()) < 1e-9


def test_landscape_of_a_small_matrix() -> None:
    x = draw(6, 5)
    sigma = torch.linalg.svdvals(x)
    found = measure_landscape(x, 2)
    minimum, mirrored, midpoint = found.witness
    assert minimum == pytest.approx(mirrored) == pytest.approx(float(sigma[2:].square().sum()))
    assert midpoint == pytest.approx(float(x.square().sum())) and midpoint > minimum
    assert found.largest_difference < 1e-9 and len(found.computed) == 2 * (6 + 5)
    assert found.sharpness == pytest.approx(found.computed[-1]) == pytest.approx(4 * float(sigma[0]))
    assert found.safe_step == pytest.approx(1 / (2 * float(sigma[0])))
    best, *others = found.critical_points
    assert best.kind == "global minimum" and best.gauge_dimension == 4
    assert len(others) == 11 and all(point.kind == "strict saddle" for point in others)
    for point in found.critical_points:
        assert point.computed == pytest.approx(point.most_negative, abs=1e-7)
        assert point.loss >= best.loss - 1e-12
    origin = found.critical_points[-1]
    assert origin.chosen == () and origin.most_negative == pytest.approx(-2 * float(sigma[0]))
    assert Landscape.model_validate_json(found.model_dump_json()) == found


def test_ties_enlarge_the_set_of_minima_beyond_the_gauge() -> None:
    found = measure_landscape(torch.diag(torch.tensor([3.0, 2.0, 2.0]).double()), 2)
    assert found.tied and found.critical_points[0].gauge_dimension > 4
    assert not measure_landscape(torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()), 2).tied


def test_a_large_matrix_keeps_its_leading_landscape() -> None:
    x = draw(3000, 5) @ draw(5, 2000, seed=1)
    found = measure_landscape(x, 2)
    assert found.sharpness == pytest.approx(4 * float(factorize(x, 1).singular_values[0]), rel=1e-6)
    assert found.critical_points[0].kind == "global minimum"


def test_points_are_classified() -> None:
    x = draw(7, 5)
    best = factorize(x, 2, method="exact")
    left, sigma, right = torch.linalg.svd(x, full_matrices=False)
    saddle = critical_point(left, sigma, right.T, rank=2, chosen=(1, 2))
    assert classify(x, best.A, best.B) == "global minimum"
    assert classify(x, saddle.A, saddle.B) == "strict saddle"
    assert classify(x, draw(7, 2), draw(2, 5)) == "not critical"
    assert classify(x, torch.zeros(7, 2), torch.zeros(2, 5)) == "strict saddle"
    with pytest.raises(OptionError, match="A, B"):
        classify(x, torch.zeros(6, 2), torch.zeros(2, 5))


def test_descent_is_safe_below_the_step_and_leaves_above_it() -> None:
    x = draw(6, 4)
    found = measure_landscape(x, 2)
    best = factorize(x, 2, method="exact")
    start = best.A + 1e-3 * draw(6, 2, seed=8), best.B + 1e-3 * draw(2, 4, seed=9)
    for factor, settles in ((0.95, True), (1.2, False)):
        a, b = start
        for _ in range(400):
            r = 2 * (a @ b - x)
            a, b = a - factor * found.safe_step * r @ b.T, b - factor * found.safe_step * a.T @ r
        excess = float(loss(x, a, b)) - found.witness[0]
        assert (math.isfinite(excess) and excess < 1e-8) is settles


def test_paths_end_at_the_minimum() -> None:
    for path in draw_paths(3.0, 0.5):
        assert path.loss[-1] == pytest.approx(0.5, abs=1e-6)
        assert all(value >= 0.5 for value in path.loss)


def test_bad_input() -> None:
    with pytest.raises(OptionError, match="rank"):
        measure_landscape(draw(3, 3), 4)
    with pytest.raises(DataError, match="other than zero"):
        measure_landscape(torch.zeros(3, 3), 1)


def test_of_a_large_matrix_the_losses_are_those_of_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(30, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small = measure_landscape(x, 2)
    monkeypatch.setattr("assay.lowrank.landscape.SMALL", 100)
    large = measure_landscape(x, 2)
    assert (large.rows, large.columns, large.predicted, large.computed) == (30, 20, (), ())
    assert large.witness == pytest.approx(small.witness)
    losses = {point.chosen: point.loss for point in small.critical_points}
    assert all(point.loss == pytest.approx(losses[point.chosen]) for point in large.critical_points)
    assert large.paths[0].loss == pytest.approx(small.paths[0].loss)


@pytest.mark.parametrize("scale", [1e12, 1e-12])
def test_numbers_are_those_of_the_matrix_and_not_of_a_scaled_one(scale: float) -> None:
    x = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    plain, scaled = measure_landscape(x, 2), measure_landscape(x * scale, 2)
    assert scaled.sharpness == pytest.approx(plain.sharpness * scale, rel=1e-5)
    assert scaled.witness == pytest.approx([value * scale**2 for value in plain.witness], rel=1e-5)
    with pytest.raises(DataError, match="entries whose squares stay in range, for a landscape"):
        measure_landscape(x.double() * scale**13, 2)
