"""Claims about recurrences: what closed forms say comes out exactly, at the smallest budget."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from assay.claims import rnn_bounded
from assay.claims.attention_path import BATCH, FEATURES, input_gradients
from assay.claims.lstm_forget import rate_of_the_path_alone
from assay.claims.rnn_clip import explode
from assay.claims.rnn_decay import shrink
from assay.claims.rnn_norm import JORDAN, draw_matrices, measure_gradients
from assay.models.architectures import build
from assay.models.sequence import PlainRecurrence, Recurrent, build_sequence_model
from assay.records.claims import ClaimResult
from assay.runtime import generator

Examined = Callable[[str], ClaimResult]


def outcomes(result: ClaimResult) -> dict[str, bool]:
    return {fact.name: fact.holds for fact in result.evidence.facts}


def test_the_norm_proves_vanishing_and_does_not_prove_exploding(examined: Examined) -> None:
    result = examined("rnn-norm")
    assert result.verdict == "refuted"
    first, second, radius, bound = result.evidence.facts
    assert (first.holds, second.holds, radius.holds, bound.holds) == (True, False, True, True)
    assert (first.got, second.got) == ("2 of 2", "1 of 4")
    rows = {str(row[0]): [float(value) for value in row[1:]] for row in result.evidence.tables[0].rows}
    norm, radius_of_jordan, peak, at, last = rows[JORDAN]
    assert (round(norm, 2), round(radius_of_jordan, 6), round(peak, 1), at) == (10.08, 0.9, 38.7, 9)
    assert last < 1e-3
    assert rows["orthogonal × 0.9"][0] == pytest.approx(0.9)
    assert rows["orthogonal × 0.9"][1] == pytest.approx(0.9)


@pytest.mark.parametrize(("name", "factor"), [("orthogonal × 0.9", 0.9), ("orthogonal × 1.1", 1.1)])
def test_gradients_of_a_normal_recurrence_are_powers(name: str, factor: float) -> None:
    found = measure_gradients(draw_matrices(6, seed=1)[name], distance=30, seed=1)
    assert found == pytest.approx([factor**k for k in range(31)], rel=1e-9)


@pytest.mark.parametrize("name", [JORDAN, "Gaussian, ρ = 0.9"])
def test_gradients_are_rows_of_the_readout_times_powers(name: str) -> None:
    W = draw_matrices(6, seed=1)[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Recurrent(PlainRecurrence(1, len(W)), hidden=len(W), outputs=1, reads="last").double()
    row = model.readout.weight.detach()
    expected = [float((row @ torch.linalg.matrix_power(W, k)).norm() / row.norm()) for k in range(21)]
    assert measure_gradients(W, distance=20, seed=1) == pytest.approx(expected, rel=1e-9)


def test_bounded_activations_bound_states_and_not_gradients(examined: Examined) -> None:
    result = examined("rnn-bounded")
    assert result.verdict == "refuted"
    held = outcomes(result)
    assert held["largest state with tanh"]
    assert held["largest state with sigmoid"]
    assert all(not holds for name, holds in held.items() if name.startswith("gradient"))
    linear = next(effect for effect in result.effects if effect.name.endswith("linear"))
    assert (linear.mean, linear.decides) == (pytest.approx(2, rel=1e-9), False)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_at_the_steepest_point_the_gradient_doubles_every_step(name: str) -> None:
    assert rnn_bounded.grow_at_the_steepest_point(name, steps=12) == pytest.approx(2**12, rel=1e-9)


def test_clipping_bounds_the_step(examined: Examined) -> None:
    result = examined("rnn-clip")
    assert result.evidence.facts[0].holds
    raw = next(effect for effect in result.effects if "before clipping" in effect.name)
    assert (raw.decides, raw.mean > 1) == (False, True)


def test_exploding_starts_follow_from_the_seed() -> None:
    def recurrent(seed: int) -> torch.Tensor:
        model = build("rnn", classes=2, image_shape=(1, 4, 4), options={"hidden": 6}, seed=seed)
        explode(model)
        return model.get_parameter("sequence.body.weight_hh_l0").detach()

    W = recurrent(3)
    torch.testing.assert_close(W @ W.T, 4 * torch.eye(6), atol=1e-5, rtol=0)
    assert torch.equal(W, recurrent(3))
    assert not torch.allclose(W, recurrent(4))


def test_decay_scales_norm_and_radius_down_alike(examined: Examined) -> None:
    assert shrink(8, seed=0) == pytest.approx((0.9, 0.9))
    result = examined("rnn-decay")
    strongest = result.effects[-1]
    assert (strongest.name, strongest.mean < 1) == ("horizon with decay 10 over that without", True)
    assert [effect.decides for effect in result.effects] == [False, True, False]
    assert result.verdict != "supported"


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0, 3.0])
def test_the_cell_path_alone_keeps_the_sigmoid_of_its_bias(bias: float) -> None:
    assert rate_of_the_path_alone(bias) == pytest.approx(1 / (1 + math.exp(-bias)), rel=1e-12)


def test_the_larger_the_forget_bias_the_longer_the_horizon(examined: Examined) -> None:
    result = examined("lstm-forget")
    assert result.verdict == "supported"
    horizons = {row[0]: float(row[1]) for row in result.evidence.tables[0].rows}
    assert horizons["LSTM, bias 0"] < horizons["LSTM, bias 1"] < horizons["LSTM, bias 3"]
    assert [effect.decides for effect in result.effects] == [True] * 4 + [False]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "transformer"])
def test_input_gradients_are_those_of_autograd(cell: str) -> None:
    found = input_gradients(cell, length=6, hidden=8, seed=2)
    model = build_sequence_model(cell, features=FEATURES, outputs=4, length=6, hidden=8, seed=2).double()
    inputs = torch.randn(BATCH, 6, FEATURES, generator=generator(2, 0xA77), dtype=torch.float64, requires_grad=True)
    model(inputs).mean(dim=1).sum().backward()  # the losses of the samples, each on its own
    assert inputs.grad is not None
    expected = inputs.grad.square().sum(dim=2).mean(dim=0).sqrt()  # √(mean_i ‖∂ℓ_i/∂x_t‖²)
    assert found == pytest.approx(expected.tolist(), rel=1e-9)


def test_attention_reaches_what_recurrences_do_not(examined: Examined) -> None:
    result = examined("attention-path")
    longest = result.evidence.tables[0].rows[-1]
    _, rnn, lstm, attention = (float(value) for value in longest)
    assert rnn < lstm < 0.1 < attention
    assert all(effect.outcome != "refuted" for effect in result.effects)
