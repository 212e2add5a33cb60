from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.diagnostics.unroll import unrolled
from assay.errors import ModelError
from assay.tracing.remedies import omega


def traced(module: nn.RNNBase, x: torch.Tensor):
    with unrolled(module) as calls:
        module(x)[0][-1].sum().backward()
    return calls[0]


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.0), (0.5, 0.25), (1.5, 0.25)])
def test_omega_of_a_scaled_identity_is_its_distance_from_one(scale: float, expected: float) -> None:
    rnn = nn.RNN(2, 4, nonlinearity="relu")
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(scale * torch.eye(4))
        rnn.bias_ih_l0.fill_(5.0)
    assert omega(traced(rnn, torch.rand(10, 3, 2))).item() == pytest.approx(expected, abs=1e-6)


def test_omega_s_gradient_is_the_immediate_one_and_reaches_the_recurrent_matrix_only() -> None:
    torch.manual_seed(0)
    rnn = nn.RNN(2, 4)
    call = traced(rnn, torch.rand(6, 3, 2))
    rnn.zero_grad()
    value = omega(call)
    value.backward()
    assert rnn.weight_ih_l0.grad is None
    gradient = rnn.weight_hh_l0.grad.clone()
    with torch.no_grad():
        for i, j in ((0, 0), (1, 3)):
            rnn.weight_hh_l0[i, j] += 1e-3
            higher = float(omega(call))
            rnn.weight_hh_l0[i, j] -= 2e-3
            lower = float(omega(call))
            rnn.weight_hh_l0[i, j] += 1e-3
            assert float(gradient[i, j]) == pytest.approx((higher - lower) / 2e-3, rel=2e-2, abs=1e-4)


def test_only_plain_recurrences_have_it() -> None:
    with pytest.raises(ModelError, match="expected nn.RNN, for which Ω is defined, got LSTM"):
        omega(traced(nn.LSTM(2, 4), torch.rand(6, 3, 2)))
