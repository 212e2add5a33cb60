from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import DataError, OptionError
from assay.lowrank.certificate import certify, largest_tangent, random_ceilings
from assay.lowrank.factorization import factorize
from assay.lowrank.krylov import orthonormalize
from assay.lowrank.ranks import marchenko_pastur_median, optimal_threshold
from assay.lowrank.sources import as_matrix

DIRECT = ["exact", "gram", "krylov"]


def matrix(m: int, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def optimum(x: torch.Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(x.double())[rank:].square().sum())


def error(x: torch.Tensor, found: object) -> float:
    return float((x.double() - found.A.double() @ found.B.double()).square().sum())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (300, 20), (1, 6), (6, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("method", [*DIRECT, "als", "descent"])
def test_every_method_reaches_the_optimum_and_proves_it(
    method: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    x, rank = matrix(*shape, dtype=dtype), min(3, *shape)
    found = factorize(x, rank, method=method)
    c, best, measured_error = found.certificate, optimum(x, rank), error(x, found)
    energy = float(x.double().square().sum())
    assert measured_error - best <= 2e-7 * energy
    assert c.optimum_low <= best + 1e-12 * energy <= c.optimum_high + 2e-12 * energy
    assert c.error_low <= measured_error + 1e-14 * energy and measured_error <= c.error_high + 1e-14 * energy
    assert c.certified and c.guarantee == "deterministic"
    assert c.gap_high >= measured_error - best - 1e-14 * energy
    sigma = torch.linalg.svdvals(x.double())
    for low, value, high in zip(c.singular_low, sigma.tolist(), c.singular_high, strict=False):
        assert low <= value * (1 + 1e-12) and value <= high * (1 + 1e-12)
    assert found.A.dtype == found.B.dtype == dtype


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 30), n=st.integers(1, 30), data=st.data(), power=st.integers(-3, 3), method=st.sampled_from(DIRECT)
)
def test_the_enclosed_optimum_holds_for_any_shape_and_rank(
    m: int, n: int, data: st.DataObject, power: int, method: str
) -> None:
    rank = data.draw(st.integers(1, min(m, n)))
    true_rank = data.draw(st.integers(0, min(m, n)))
    seed = data.draw(st.integers(0, 99))
    x = matrix(m, true_rank, seed) @ matrix(true_rank, n, seed + 100) * 10.0**power
    c = factorize(x, rank, method=method).certificate
    exact = np.linalg.svd(x.numpy(), compute_uv=False)
    best, energy = float((exact[rank:] ** 2).sum()), float((exact**2).sum())
    assert c.optimum_low <= best + 1e-13 * energy
    assert best <= c.optimum_high + 1e-13 * energy
    assert c.error_low <= c.error <= c.error_high
    assert c.certified


def test_the_error_of_a_poor_factorisation_is_measured() -> None:
    x = matrix(50, 30)
    good = factorize(x, 4)
    spoiled = good.A + 0.05 * matrix(50, 4, seed=9)
    c = certify(x, spoiled, good.B)
    true_gap = float((x - spoiled @ good.B).square().sum()) - optimum(x, 4)
    assert not c.certified and "more than" in c.reason
    assert true_gap <= c.gap_high <= true_gap * 1.001 + 1e-8
    assert certify(x, good.A, good.B).certified


def test_probable_bounds_hold_where_a_gram_matrix_is_too_expensive() -> None:
    x = matrix(900, 700, seed=3)
    found = factorize(x, 5, method="krylov")
    c = found.certificate
    sigma = torch.linalg.svdvals(x)
    assert c.guarantee == "probabilistic" and c.failure_probability == 1e-9
    assert c.optimum_low <= optimum(x, 5) <= c.optimum_high
    assert all(high >= value for value, high in zip(sigma.tolist(), c.singular_high, strict=False))
    strict = factorize(x, 5, method="krylov", assurance="strict", accuracy=1e-9).certificate
    assert strict.guarantee == "deterministic" and strict.certified
    none = factorize(x, 5, method="krylov", assurance="none").certificate
    assert not none.certified and none.guarantee == "none" and math.isinf(none.relative_gap)


@pytest.mark.parametrize("decay", [lambda i: 0.99**i, lambda i: i**-0.5], ids=["fast", "slow"])
def test_a_ceiling_from_random_probes_holds_at_every_step_and_comes_down(decay: object) -> None:
    n, k = 400, 10
    sigma = decay(torch.arange(1, n + 1, dtype=torch.float64))
    x, basis = as_matrix(torch.diag(sigma)), torch.eye(n, dtype=torch.float64)[:, :k]
    true, energy = float(sigma[k] ** 2), float(sigma.square().sum())
    for seed in range(20):
        drawn = matrix(n, 16, seed)
        start = orthonormalize(drawn - basis @ (basis.T @ drawn))
        found = random_ceilings(
            x, basis, start, x.apply_gram(start), energy=energy, failure_probability=1e-9, steps=6
        )  # fmt: skip
        values = [ceiling.value for ceiling in found]
        assert len(values) == 6 and all(value >= true for value in values)
        assert values[-1] <= 1.35 * true < values[0]


def test_the_angle_to_random_probes_exceeds_its_bound_as_rarely_as_stated() -> None:
    n, b, doubt = 60, 4, 0.2
    draws = torch.randn(4000, n, b, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leading = draws[:, 0]
    x = (draws @ leading[:, :, None])[:, :, 0]  # the combination of the probes along their first coordinates
    tangent = torch.linalg.vector_norm(x[:, 1:], dim=1) / x[:, 0].abs()
    bound = largest_tangent(n, b, failure_probability=doubt)
    assert 0.02 * doubt <= float((tangent > bound).double().mean()) <= doubt


def test_a_slow_decay_that_was_not_iterated_enough_is_not_certified() -> None:
    x = matrix(800, 650, seed=4)
    c = factorize(x, 20, method="krylov", accuracy=0.2).certificate
    assert not c.certified
    assert c.optimum_low <= optimum(x, 20) <= c.optimum_high


@pytest.mark.parametrize("method", [*DIRECT, "als", "descent"])
def test_a_ridge_on_the_factors_shrinks_every_singular_value(method: str) -> None:
    x, ridge = matrix(30, 12), 1.5
    sigma = torch.linalg.svdvals(x)[:4]
    found = factorize(x, 4, ridge=ridge, method=method, accuracy=1e-9)
    assert found.singular_values.tolist() == pytest.approx((sigma - ridge).clamp_min(0).tolist(), rel=1e-3)
    nuclear = float((x - found.product).square().sum() + 2 * ridge * torch.linalg.svdvals(found.product).sum())
    assert found.error == pytest.approx(nuclear, rel=1e-6)
    assert found.error == pytest.approx(float(x.square().sum() - (sigma - ridge).clamp_min(0).square().sum()), rel=1e-6)
    assert found.certificate.certified


def test_factors_come_back_balanced() -> None:
    found = factorize(matrix(20, 10), 3)
    assert torch.allclose(found.A.T @ found.A, found.B @ found.B.T, atol=1e-10)
    assert torch.allclose(found.A.T @ found.A, torch.diag(found.singular_values), atol=1e-10)


@pytest.mark.parametrize("method", DIRECT)
def test_rank_from_tolerance_and_energy_is_the_smallest_that_will_do(method: str) -> None:
    x = matrix(60, 40)
    sigma = torch.linalg.svdvals(x)
    errors = [math.sqrt(optimum(x, r) / float(x.square().sum())) for r in range(41)]
    for bound in (0.9, 0.5, 0.1):
        expected = next(r for r, value in enumerate(errors) if value <= bound)
        assert factorize(x, tolerance=bound, method=method).rank == expected
        shares = (sigma.square().cumsum(0) / sigma.square().sum()).tolist()
        expected = next(r for r, value in enumerate(shares, 1) if value >= bound)
        assert factorize(x, energy=bound, method=method).rank == expected
    assert factorize(x, tolerance=0.0).rank == 40


def test_gavish_donoho_finds_the_planted_rank_with_known_and_unknown_noise() -> None:
    m, n, r = 300, 200, 4
    planted = 12 * torch.linalg.qr(matrix(m, r)).Q @ torch.linalg.qr(matrix(n, r, 1)).Q.T
    x = planted + 0.1 * matrix(m, n, 2)
    assert factorize(x, "gavish-donoho").rank == r
    assert factorize(x, "gavish-donoho", noise=0.1).rank == r
    assert factorize(x, "gavish-donoho", noise=0.1, method="krylov").rank == r


def test_gavish_donoho_constants_are_those_of_the_paper() -> None:
    assert optimal_threshold(1.0) == pytest.approx(4 / math.sqrt(3))
    assert optimal_threshold(1.0) / math.sqrt(marchenko_pastur_median(1.0)) == pytest.approx(2.858, abs=1e-3)
    assert optimal_threshold(0.5) / math.sqrt(marchenko_pastur_median(0.5)) == pytest.approx(2.1711, abs=2e-3)


def test_ties_are_told_from_gauge() -> None:
    assert (
        factorize(torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()), 2).certificate.uniqueness == "unique up to gauge"
    )
    assert factorize(torch.diag(torch.tensor([3.0, 2.0, 2.0]).double()), 2).certificate.uniqueness == "tied"


@pytest.mark.parametrize("method", [*DIRECT, "als"])
def test_zero_constant_and_rank_deficient_matrices(method: str) -> None:
    zero = factorize(torch.zeros(7, 5), 2, method=method)
    assert float(zero.product.abs().max()) == 0 and zero.certificate.certified
    flat = factorize(torch.full((7, 5), 3.0), 2, method=method)
    assert torch.allclose(flat.product, torch.full((7, 5), 3.0), atol=1e-5)
    assert flat.certificate.certified


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e160])
@pytest.mark.parametrize("method", DIRECT)
def test_entries_whose_squares_leave_the_range_are_scaled_first(method: str, scale: float) -> None:
    x = matrix(20, 12)
    found = factorize(x * scale, 3, method=method)
    assert (found.product / scale - factorize(x, 3).product).abs().max() < 1e-6
    assert found.certificate.certified
    assert found.singular_values.tolist() == pytest.approx((torch.linalg.svdvals(x)[:3] * scale).tolist(), rel=1e-9)


def test_integers_cannot_overflow() -> None:
    x = np.full((6, 4), 2**31 - 1, dtype=np.int32)
    x[0] = -(2**31)
    found = factorize(x, 2)
    assert np.abs(found.product.numpy() - x).max() < 1e-3
    assert factorize(x.astype(np.uint8), 1).A.dtype == torch.float64
    assert factorize(torch.ones(3, 3, dtype=torch.float16), 1).A.dtype == torch.float32


def test_one_seed_gives_equal_factors() -> None:
    x = matrix(80, 60)
    one, two = (factorize(x, 4, method="krylov", seed=5) for _ in range(2))
    assert torch.equal(one.A, two.A) and one.certificate == two.certificate


@pytest.mark.parametrize("seed", [0, 1])
def test_a_single_pass_is_near_the_optimum_and_is_not_certified(seed: int) -> None:
    x = matrix(400, 5) @ matrix(5, 60, 1) + 0.01 * matrix(400, 60, 2)
    found = factorize(iter(torch.split(x, 64)), 5, seed=seed)
    assert found.method == "single-pass" and not found.certificate.certified
    assert error(x, found) < 4 * optimum(x, 5)
    assert "one pass" in found.certificate.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, r"rank: expected a whole number in 1\.\.4, got 0"),
        ({"rank": 5}, r"rank: expected a whole number in 1\.\.4, got 5"),
        ({"rank": 2.5}, "rank: expected a whole number"),
        ({"rank": "half"}, "gavish-donoho"),
        ({}, "one of rank, tolerance and energy, got none"),
        ({"rank": 2, "energy": 0.5}, "got rank and energy"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"energy": 0.0}, "energy"),
        ({"rank": 2, "ridge": -1.0}, "ridge"),
        ({"rank": 2, "ridge": math.nan}, "ridge"),
        ({"rank": 2, "method": "magic"}, "method"),
        ({"rank": 2, "noise": 1.0}, "noise"),
        ({"rank": 2, "accuracy": 0.0}, "accuracy"),
        ({"energy": 0.5, "method": "als"}, "rank: expected a number"),
    ],
    ids=str,
)
def test_wrong_options_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        factorize(matrix(6, 4), **change)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.empty(0, 3), "at least one row and one column"),
        (torch.empty(3, 0), "at least one row and one column"),
        (torch.ones(3), r"a matrix \(two dimensions\), got shape \(3,\)"),
        (torch.ones(2, 2, dtype=torch.complex64), "real numbers"),
        (np.array([["a", "b"]]), "real numbers"),
        ([[1.0, 2.0], [3.0]], "expected a matrix"),
        (object(), "two dimensions"),
        (sp.csr_matrix((3, 0)), "at least one row and one column"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_matrix_is_refused(x: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        factorize(x, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_entries_are_counted_and_located(bad: float) -> None:
    x = matrix(500, 6).float()
    x[400, 3] = bad
    x[450, 1] = math.nan
    with pytest.raises(DataError, match=r"X: expected finite numbers, got .* at \[400, 3\], 2 non-finite of 3000"):
        factorize(x, 2)
    with pytest.raises(DataError, match=r"\[400, 3\]"):
        factorize(sp.csr_matrix(x.numpy()), 2)
    with pytest.raises(DataError, match=r"\[400, 3\]"):
        factorize(iter(torch.split(x, 100)), 2)


def test_certify_refuses_factors_that_do_not_fit(tmp_path: Path) -> None:
    x = matrix(6, 4)
    with pytest.raises(DataError, match=r"expected \(6, r\) and \(r, 4\)"):
        certify(x, torch.ones(6, 2), torch.ones(3, 4))
    with pytest.raises(DataError, match="1 non-finite"):
        certify(x, torch.tensor([[math.nan]] + [[1.0]] * 5), torch.ones(1, 4))


@pytest.mark.parametrize("noise", [1e-2, 0.3])
def test_without_a_certificate_the_error_is_still_told(noise: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 5, generator=g) @ torch.randn(5, 30, generator=g) + noise * torch.randn(4000, 30, generator=g)
    found = factorize(x, 5, assurance="none")
    squares = torch.linalg.svdvals(x.double()).square()
    assert found.error == pytest.approx(float(squares[5:].sum()), rel=2e-2)  # 1.7e-5 of ‖X‖² with the small noise


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ridge": -1.0}, "ridge"), ({"ridge": math.nan}, "ridge"), ({"assurance": "none"}, "assurance")],
    ids=str,
)
def test_certify_refuses_what_would_certify_nothing(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        certify(matrix(6, 4), torch.ones(6, 2), torch.ones(2, 4), **change)
    with pytest.raises(DataError, match="A: expected real numbers"):
        certify(matrix(6, 4), torch.ones(6, 2, dtype=torch.complex64), torch.ones(2, 4))


@pytest.mark.parametrize("scale", [1e-160, 1e160])
@pytest.mark.parametrize("method", ["als", "descent"])
def test_iterative_methods_too_scale_what_leaves_the_range(method: str, scale: float) -> None:
    x = matrix(12, 8)
    found = factorize(x * scale, 3, method=method)
    assert (found.product / scale - factorize(x, 3).product).abs().max() < 1e-2 and found.certificate.certified
