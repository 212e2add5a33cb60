"""Singular values that repeat, and rules for the rank that must be kept: numpy's SVD is the oracle."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import OptionError, UnusedOptionError
from assay.lowrank import factorize
from assay.lowrank.krylov import block_krylov
from assay.lowrank.ranks import RankRule
from assay.lowrank.sources import as_matrix

METHODS = ["exact", "gram", "krylov"]
FORMS = {
    "dense": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "sparse": sp.csr_matrix,
    "blocks": lambda x: lambda: iter(np.array_split(x, 5)),
}


def with_values(sigma: list[float], m: int, n: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    left, right = (np.linalg.qr(draw.standard_normal((side, len(sigma))))[0] for side in (m, n))
    return (left * np.array(sigma)) @ right.T


def hadamard(power: int) -> np.ndarray:
    h = np.ones((1, 1))
    for _ in range(power):
        h = np.block([[h, h], [h, -h]])
    return h


def check(x: np.ndarray, found: object, *, loss: float = 2e-6) -> None:
    """The error is the optimum of the rank, and no claim of the certificate is false."""
    x = np.asarray(x, np.float64)
    size = np.abs(x).max() or 1.0
    sigma = np.linalg.svd(x / size, compute_uv=False)
    energy = (sigma**2).sum()
    product = (found.A.double().numpy() / math.sqrt(size)) @ (found.B.double().numpy() / math.sqrt(size))
    gap = ((x / size - product) ** 2).sum() - (sigma[found.rank :] ** 2).sum()
    assert gap <= loss * energy
    c = found.certificate
    assert c.certified or not found.missed
    if c.uniqueness == "unique up to gauge" and found.rank < len(sigma):
        assert sigma[found.rank - 1] > sigma[found.rank]
    known = found.spectrum.double().numpy() / size
    assert np.abs(known - sigma[: len(known)]).max() <= 1e-3 * sigma[0]


CASES = {
    "identity": np.eye(90),
    "tall identity": np.eye(130, 70),
    "wide identity": np.eye(70, 130),
    "permutation": np.eye(90)[np.random.default_rng(0).permutation(90)],
    "orthogonal": np.linalg.qr(np.random.default_rng(1).standard_normal((90, 90)))[0],
    "hadamard": hadamard(6),
    "projector": with_values([1.0] * 40, 90, 90),
    "kron": np.kron(np.eye(16), np.random.default_rng(2).standard_normal((5, 5))),
    "repeated in the middle": with_values([9, 8, 7] + [3.0] * 50 + [1.0] * 30, 90, 90),
    "repeated at the top": with_values([5.0] * 40 + [2.0] * 45, 90, 90),
    "nearly repeated": with_values([1 + 1e-9 * i for i in range(40)] + [0.5] * 40, 90, 90),
    "rank below the wanted": with_values([3, 2, 2, 2, 1.0], 90, 90),
    "zero": np.zeros((90, 80)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_every_copy_of_a_repeated_value_is_found(case: str, form: str, method: str) -> None:
    x = CASES[case]
    shown = x.astype(np.float32) if form == "float32" else x
    for rank in (1, 50):
        found = factorize(FORMS[form](x), rank, method=method)
        assert found.rank == rank and not found.missed and found.certificate.certified
        check(shown, found)
    squares = np.linalg.svd(x, compute_uv=False) ** 2
    total = squares.sum()
    found = factorize(FORMS[form](x), energy=0.8, method=method)
    expected = next((r for r, kept in enumerate(accumulate(squares), 1) if kept >= (0.8 - 1e-9) * total), 1)
    assert found.rank == expected and not found.missed
    check(shown, found)


@pytest.mark.parametrize(
    ("groups", "rank", "form", "seed"),
    [
        ([(1e-3, 10)], 7, "blocks", 1),
        ([(0.5, 4), (2.0 + 1e-9, 3)], 1, "sparse", 87),
        ([(0.0, 3), (0.5, 29), (2.0, 30), (1.0, 4)], 16, "sparse", 38),
        ([(2.0, 26), (2.0 + 1e-9, 12)], 2, "blocks", 34),
    ],
)
def test_a_certificate_does_not_suffer_from_a_direction_that_is_half_found(
    groups: list[tuple[float, int]], rank: int, form: str, seed: int
) -> None:
    sigma = sorted((value for value, copies in groups for _ in range(copies)), reverse=True)
    for extra in range(12):
        x = with_values(sigma, len(sigma) + extra, len(sigma) + seed % 7, seed)
        found = factorize(FORMS[form](x), rank, method="krylov")
        assert found.certificate.certified, found.certificate.reason
        check(x, found)


@settings(max_examples=30, deadline=None)
@given(
    groups=st.lists(st.tuples(st.sampled_from([0.0, 1e-3, 0.5, 1.0, 2.0, 2.0 + 1e-9, 10.0]), st.integers(1, 30)),
                    min_size=1, max_size=4),
    extra=st.integers(0, 20), seed=st.integers(0, 99), power=st.sampled_from([0, 0, 0, -160, 150]), data=st.data(),
)  # fmt: skip
def test_drawn_multiplicities_in_every_method(
    groups: list[tuple[float, int]], extra: int, seed: int, power: int, data: st.DataObject
) -> None:
    sigma = sorted((value for value, copies in groups for _ in range(copies)), reverse=True)
    m, n = len(sigma) + extra, len(sigma) + seed % 7
    x = with_values(sigma, m, n, seed) * 10.0**power
    form = data.draw(st.sampled_from(sorted(set(FORMS) - {"float32"})))
    method = data.draw(st.sampled_from(METHODS))
    rank = data.draw(st.integers(1, len(sigma)))
    found = factorize(FORMS[form](x), rank, method=method)
    assert found.rank == rank and not found.missed and found.certificate.certified
    check(x, found)
    share = data.draw(st.sampled_from([0.3, 0.9, 0.999]))
    by_energy = factorize(FORMS[form](x), energy=share, method=method)
    kept = np.cumsum(np.array(sigma) ** 2) / max(sum(value**2 for value in sigma), 1e-300)
    expected = next((r for r, part in enumerate(kept, 1) if part >= share - 1e-9), 1)
    assert by_energy.rank == expected and not by_energy.missed
    check(x, by_energy)


def test_five_thousand_equal_values_are_no_invariant_subspace_of_sixteen() -> None:
    x = sp.identity(5000, format="csr")
    found = factorize(x, 50)
    c = found.certificate
    assert found.rank == 50 and found.error == pytest.approx(4950)
    assert c.certified and c.uniqueness == "tied" and c.optimum_low <= 4950 <= c.optimum_high
    x = sp.identity(700, format="csr")
    by_energy = factorize(x, energy=0.9)
    assert by_energy.rank == 630 and not by_energy.missed and by_energy.error == pytest.approx(70)


def test_a_space_that_repeats_is_not_taken_for_the_whole() -> None:
    rule = RankRule(rank=50)
    x = with_values([10.0] * 40 + list(np.linspace(1, 0.1, 400)), 500, 480)
    space = block_krylov(as_matrix(x), rule, energy=float((x**2).sum()), accuracy=1e-7, seed=0, block=12)
    assert space.squares[:40].sqrt().tolist() == pytest.approx([10.0] * 40)
    assert space.squares[40:50].sum() == pytest.approx((np.linalg.svd(x, compute_uv=False)[40:50] ** 2).sum(), rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tolerance", [2e-2, 2e-5, 2e-9, 2e-12])
def test_a_tolerance_below_the_digits_of_squares_is_kept(method: str, tolerance: float) -> None:
    sigma = 10.0 ** -np.arange(16.0)
    x = with_values(sigma.tolist(), 60, 40)
    found = factorize(x, tolerance=tolerance, method=method)
    left = np.sqrt(np.cumsum(sigma[::-1] ** 2)[::-1] / (sigma**2).sum())  # relative error at rank 0, 1, …
    assert found.rank == next(r for r, error in enumerate(left) if error <= tolerance) and not found.missed
    product = found.A.numpy() @ found.B.numpy()
    assert np.linalg.norm(x - product) <= tolerance * np.linalg.norm(x) * (1 + 1e-3)


def test_what_the_factors_cannot_keep_is_told_and_not_certified() -> None:
    x = torch.from_numpy(with_values((10.0 ** -np.arange(8.0)).tolist(), 60, 40)).float()
    assert not factorize(x, tolerance=1e-5).missed
    rule = RankRule(tolerance=1e-9)
    assert rule.shortfall(3, 1e-8, energy=1.0, rounding=0.0) == "the relative error is 0.0001, more than 1e-09"
    assert (
        RankRule(energy=0.9).shortfall(3, 0.5, energy=1.0, rounding=0.0) == "50 % of the energy is kept, less than 90 %"
    )
    assert RankRule(rank=4).shortfall(3, 0.5, energy=1.0, rounding=0.0) == "rank 3, not 4, was reached"


def test_a_solver_that_stops_short_is_mended_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.lowrank import krylov

    monkeypatch.setattr(krylov, "LARGEST_BASIS", 500)
    x = np.random.default_rng(0).standard_normal((60, 40))
    mended = factorize(x, energy=0.9, method="krylov")
    assert mended.method == "exact" and not mended.missed
    monkeypatch.setattr("assay.lowrank.factorization.fits_exactly", lambda matrix: False)
    short = factorize(x, energy=0.9, method="krylov")
    assert short.missed.endswith("of the energy is kept, less than 90 %")
    assert not short.certificate.certified and short.certificate.reason == short.missed


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"steps": 5}, "steps"),
        ({"steps": 5, "method": "gram"}, "steps"),
        ({"accuracy": 1e-3, "method": "single-pass"}, "accuracy"),
        ({"assurance": "strict", "method": "single-pass"}, "assurance"),
    ],
    ids=str,
)
def test_options_without_effect_are_refused(change: dict[str, object], where: str) -> None:
    with pytest.raises(UnusedOptionError, match=f"{where}: "):
        factorize(np.eye(6), 2, **change)


def test_a_single_pass_over_fewer_rows_than_the_rank_is_refused() -> None:
    with pytest.raises(OptionError, match=r"rank: expected a whole number in 1\.\.3, the rows that there are, got 4"):
        factorize(iter([np.ones((3, 9))]), 4)


def test_of_many_columns_the_error_is_measured_and_no_bound_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.lowrank.factorization.LARGEST_CERTIFIED", 10)
    found = factorize(np.eye(40), energy=0.5)
    assert found.rank == 20 and not found.missed and found.error == pytest.approx(20)
    assert not found.certificate.certified and "takes assurance strict" in found.certificate.reason
    assert factorize(np.eye(40), energy=0.5, assurance="strict").certificate.certified
