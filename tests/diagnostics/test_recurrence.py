from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.diagnostics.recurrence import analyse_matrix, jacobian_product, log_power_norms, recurrent_matrices
from assay.diagnostics.time import fit_decay
from assay.errors import ModelError


def test_a_jordan_block_peaks_at_38_7_before_it_vanishes() -> None:
    """W = [[.9, 10], [0, .9]]: the corner of W^k is 10·k·.9^(k−1), greatest at k = 9 and 10."""
    W = torch.tensor([[0.9, 10.0], [0.0, 0.9]], dtype=torch.float64)
    corners = [float(torch.linalg.matrix_power(W, k)[0, 1]) for k in (9, 10)]
    assert corners == pytest.approx([10 * 9 * 0.9**8, 10 * 10 * 0.9**9])
    assert corners == pytest.approx([38.742, 38.742], abs=1e-3)
    matrix = analyse_matrix(W, steps=400)
    assert matrix.spectral_radius == pytest.approx(0.9, abs=1e-6)
    assert matrix.norm == pytest.approx(float(torch.linalg.matrix_norm(W, 2)))
    assert matrix.peak_at in {9, 10}
    assert matrix.peak == pytest.approx(38.742, rel=2e-3)
    assert matrix.log_power[-1] < -20
    statements = " ".join(matrix.proves)
    assert "ρ = 0.900 < 1: W^k → 0" in statements
    assert "not sufficient" in statements
    assert "Non-normal" in statements


def test_a_normal_matrix_has_its_radius_for_a_norm_at_every_power() -> None:
    W = torch.diag(torch.tensor([0.5, -0.8, 0.3]))
    matrix = analyse_matrix(W, steps=30)
    assert matrix.non_normality == pytest.approx(0.0, abs=1e-6)
    assert matrix.log_power == pytest.approx(matrix.log_lower, abs=1e-5)
    assert matrix.log_power == pytest.approx(matrix.log_upper, abs=1e-5)
    assert any("sufficient for vanishing" in sentence for sentence in matrix.proves)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000), st.floats(0.01, 5))
def test_the_sandwich_holds_for_any_matrix(size: int, seed: int, scale: float) -> None:
    W = scale * torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = analyse_matrix(W, steps=50)
    for low, exact, high in zip(matrix.log_lower, matrix.log_power, matrix.log_upper, strict=True):
        assert low <= exact + 1e-6
        assert exact <= high + 1e-6


def test_powers_beyond_the_range_of_numbers_keep_their_logarithm() -> None:
    assert log_power_norms(torch.eye(2, dtype=torch.float64) * 1e10, 1000)[-1] == pytest.approx(1000 * math.log(1e10))
    nilpotent = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    assert log_power_norms(nilpotent, 3) == [0.0, -math.inf, -math.inf]


def test_torch_s_own_initialisation_leaves_the_norm_test_open_and_the_radius_test_closed() -> None:
    torch.manual_seed(0)
    (matrix,) = recurrent_matrices(nn.RNN(4, 1000), name="rnn", steps=2)
    assert matrix.spectral_radius == pytest.approx(1 / math.sqrt(3), abs=0.02)
    assert matrix.norm == pytest.approx(2 / math.sqrt(3), abs=0.02)


def test_every_layer_direction_and_gate_has_its_matrix() -> None:
    matrix = recurrent_matrices(nn.LSTM(3, 5, num_layers=2, bidirectional=True), name="lstm", steps=3)
    assert len(matrix) == 2 * 2 * 4
    assert {m.name for m in matrix} == {"lstm.l0", "lstm.l0.reverse", "lstm.l1", "lstm.l1.reverse"}
    projected = recurrent_matrices(nn.LSTM(3, 5, proj_size=2), name="lstm", steps=3)
    assert [m.size for m in projected] == [5] * 4


def test_a_matrix_that_is_none_is_refused() -> None:
    with pytest.raises(ModelError, match=r"W: expected a finite square matrix, got shape \(2, 3\)"):
        analyse_matrix(torch.zeros(2, 3), steps=3)


def test_jacobian_products_of_a_linear_map_are_its_powers() -> None:
    W = torch.tensor([[0.9, 10.0], [0.0, 0.9]], dtype=torch.float64)
    states = [torch.zeros(2, dtype=torch.float64)] * 120
    matrix = jacobian_product(lambda z, t: W @ z, states)
    for d in (0, 1, 5, 9, 60):
        values = torch.linalg.svdvals(torch.linalg.matrix_power(W, d))
        assert matrix.log_largest[d] == pytest.approx(math.log(values[0]), abs=1e-8)
        assert matrix.log_smallest[d] == pytest.approx(math.log(values[-1]), abs=1e-5)
    assert matrix.lyapunov == pytest.approx(matrix.log_largest[-1] / 119)


def test_a_singular_jacobian_has_no_smallest_value() -> None:
    matrix = jacobian_product(lambda z, t: z * torch.tensor([1.0, 0.0]), [torch.ones(2)] * 4)
    assert matrix.log_smallest == (0.0, -math.inf, -math.inf, -math.inf)
    assert matrix.log_largest == (0.0, 0.0, 0.0, 0.0)


def test_exponential_decay_is_recovered_with_its_horizon() -> None:
    decay = fit_decay([3.0 * 0.8**d for d in range(60)])
    assert (decay.law, decay.points) == ("exponential", 60)
    assert decay.rate == pytest.approx(0.8)
    assert decay.horizon == pytest.approx(-1 / math.log(0.8))
    assert decay.r2_exponential == pytest.approx(1.0)


def test_polynomial_decay_is_told_from_exponential() -> None:
    decay = fit_decay([2.0 * (1 + d) ** -1.5 for d in range(200)])
    assert decay.law == "polynomial"
    assert decay.exponent == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("norms", "law"),
    [([1.0] * 50, "flat"), ([1.0, 0.5], "undefined"), ([0.0, math.nan, math.inf, 1.0], "undefined"), ([], "undefined")],
    ids=["flat", "two", "broken", "none"],
)
def test_curves_without_a_law(norms: list[float], law: str) -> None:
    assert fit_decay(norms).law == law


def test_growth_has_no_horizon_and_underflow_is_left_out() -> None:
    growing = fit_decay([1.1**d for d in range(100)])
    assert growing.rate == pytest.approx(1.1)
    assert growing.horizon == math.inf
    underflowed = fit_decay([float(np.float32(0.1**d)) for d in range(100)])
    assert underflowed.rate == pytest.approx(0.1, rel=1e-2)
    assert underflowed.points < 60
