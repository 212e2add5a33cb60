from __future__ import annotations

import math

import pytest
import torch

from assay.errors import DataError, OptionError
from assay.lowrank.factorization import factorize
from assay.lowrank.missing import complete, soft_impute


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(m: int, n: int, share: float, seed: int = 9) -> torch.Tensor:
    return torch.rand(m, n, generator=torch.Generator().manual_seed(seed)) < share


def test_a_matrix_of_low_rank_is_recovered_from_half_of_its_entries() -> None:
    x = draw(40, 3) @ draw(3, 30, seed=1)
    mask = known(40, 30, 0.6)
    with_gaps = torch.where(mask, x, math.nan)
    for found in (complete(with_gaps, 3, accuracy=1e-14), complete(x, 3, mask=mask, accuracy=1e-14)):
        assert torch.allclose(found.product, x, atol=1e-3)
        assert not found.certificate.certified and found.certificate.guarantee == "none"
        assert all(b <= a * (1 + 1e-12) for a, b in zip(found.history, found.history[1:], strict=False))


def test_without_gaps_it_is_the_truncated_svd() -> None:
    x = draw(20, 15)
    found = complete(x, 4, accuracy=1e-13)
    assert torch.allclose(found.product, factorize(x, 4).product, atol=1e-4)


def test_weights_that_are_a_product_reduce_to_scaling() -> None:
    x, u, v = draw(20, 12), torch.rand(20).double() + 0.5, torch.rand(12).double() + 0.5
    scaled = factorize(u.sqrt()[:, None] * x * v.sqrt(), 3).product
    expected = scaled / u.sqrt()[:, None] / v.sqrt()
    assert torch.allclose(complete(x, 3, weights=torch.outer(u, v), accuracy=1e-14).product, expected, atol=1e-4)


@pytest.mark.parametrize("ridge", [0.5, 2.0])
def test_soft_impute_closes_its_duality_gap(ridge: float) -> None:
    x = torch.where(known(30, 20, 0.5), draw(30, 20), math.nan)
    found = soft_impute(x, ridge, accuracy=1e-16)
    c = found.certificate
    assert c.certified and c.guarantee == "deterministic"
    by_als = complete(x, 20, ridge=ridge, accuracy=1e-14, steps=3000)
    assert by_als.error == pytest.approx(found.error, rel=1e-5)
    assert c.optimum_low <= min(by_als.error, found.error)
    rough = soft_impute(x, ridge, steps=2)
    assert not rough.certificate.certified and rough.certificate.optimum_low <= found.error


def test_soft_impute_without_gaps_shrinks_singular_values() -> None:
    x = draw(12, 9)
    sigma = (torch.linalg.svdvals(x) - 1.0).clamp_min(0)
    assert torch.allclose(soft_impute(x, 1.0).singular_values, sigma[sigma > 0])


def test_a_row_without_known_entries_gets_zeros() -> None:
    x = draw(6, 5)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2] = False
    assert float(complete(x, 2, mask=mask).product[2].abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"rank": 0}, OptionError, "rank"),
        ({"rank": 9}, OptionError, "rank"),
        ({"ridge": -1}, OptionError, "ridge"),
        ({"mask": torch.ones(2, 2)}, DataError, r"mask: expected \(6, 5\)"),
        ({"mask": torch.zeros(6, 5)}, DataError, "at least one known entry"),
        ({"weights": -torch.ones(6, 5)}, DataError, "at least 0"),
        ({"weights": torch.full((6, 5), math.nan)}, DataError, "finite"),
    ],
    ids=str,
)
def test_bad_input(change: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        complete(draw(6, 5), **{"rank": 2, **change})


def test_infinite_known_entries_are_located() -> None:
    x = draw(6, 5)
    x[3, 2] = math.inf
    with pytest.raises(DataError, match=r"inf at \[3, 2\], 1 non-finite"):
        complete(x, 2)


@pytest.mark.parametrize("scale", [1e160, 1e-160])
def test_entries_whose_squares_leave_the_range_are_refused(scale: float) -> None:
    with pytest.raises(DataError, match="entries whose squares stay in range: scale X"):
        complete(draw(6, 5) * scale, 2)
    with pytest.raises(DataError, match="entries whose squares stay in range: scale X"):
        soft_impute(draw(6, 5) * scale, 1.0)
