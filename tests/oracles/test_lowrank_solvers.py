"""Our factorisations against scikit-learn, SciPy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from sklearn.decomposition import TruncatedSVD

from assay.lowrank.certificate import certify
from assay.lowrank.factorization import factorize
from assay.lowrank.gauge import Factors, same_solution


@pytest.mark.parametrize("method", ["exact", "gram", "krylov"])
def test_dense_factors_are_those_of_lapack(method: str) -> None:
    x = np.random.default_rng(0).standard_normal((120, 80))
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    theirs = Factors(torch.from_numpy(u[:, :6] * s[:6]), torch.from_numpy(vt[:6]))
    found = factorize(x, 6, method=method, accuracy=1e-12)
    assert same_solution(found, theirs, tolerance=1e-5)
    assert found.singular_values.numpy() == pytest.approx(s[:6], rel=1e-9)


def test_sparse_singular_values_are_those_of_arpack() -> None:
    x = sp.random(2_000, 900, density=0.01, random_state=0, format="csr")
    expected = np.sort(svds(x, 8)[1])[::-1]
    assert factorize(x, 8, accuracy=1e-10).singular_values.numpy() == pytest.approx(expected, rel=1e-6)


def test_an_inexact_answer_of_another_library_is_not_certified_and_an_exact_one_is() -> None:
    x = np.random.default_rng(1).standard_normal((500, 400))
    rough = TruncatedSVD(10, n_iter=1, random_state=0)
    a, b = rough.fit_transform(x), rough.components_
    best = float((np.linalg.svd(x, compute_uv=False)[10:] ** 2).sum())
    gap = float(((x - a @ b) ** 2).sum()) - best
    verdict = certify(x, torch.from_numpy(a), torch.from_numpy(b))
    assert gap > 1e-3 * best and not verdict.certified
    assert gap <= verdict.gap_high <= 1.01 * gap
    exact = TruncatedSVD(10, algorithm="arpack", random_state=0)
    assert certify(x, torch.tensor(exact.fit_transform(x).copy()), torch.tensor(exact.components_.copy())).certified
