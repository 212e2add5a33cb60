from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from assay.diagnostics.attention import attention_weights
from assay.diagnostics.time import measure_state_gradients, measure_time_trace
from assay.diagnostics.unroll import step_through, unrolled
from assay.errors import DataError, ModelError, OptionError
from assay.models.sequence import CELLS, build_sequence_model, half_life, set_forget_bias
from assay.records.recurrence import TimeTrace

KINDS = {
    "tanh": lambda **k: nn.RNN(3, 6, **k),
    "relu": lambda **k: nn.RNN(3, 6, nonlinearity="relu", **k),
    "gru": lambda **k: nn.GRU(3, 6, **k),
    "lstm": lambda **k: nn.LSTM(3, 6, **k),
}
SHAPES = {
    "plain": {},
    "stacked": {"num_layers": 3},
    "bidirectional": {"num_layers": 2, "bidirectional": True},
    "batch first": {"batch_first": True, "bidirectional": True},
    "without bias": {"bias": False},
}


def square(output: torch.Tensor) -> torch.Tensor:
    return output.square().mean()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_stepping_equals_the_fused_kernel(kind: str, shape: str) -> None:
    torch.manual_seed(0)
    module = KINDS[kind](**SHAPES[shape])
    x = torch.randn(4, 7, 3) if module.batch_first else torch.randn(7, 4, 3)
    fused, fused_state = module(x)
    stepped, stepped_state, tracks = step_through(module, x, None)
    torch.testing.assert_close(stepped, fused, atol=1e-6, rtol=1e-5)
    for a, b in zip(_flat(stepped_state), _flat(fused_state), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert len(tracks) == module.num_layers * (2 if module.bidirectional else 1)
    assert all(len(track.hidden) == 7 for track in tracks)


def _flat(state) -> tuple:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("kind", KINDS)
def test_stepping_takes_first_states_unbatched_and_packed_input(kind: str) -> None:
    torch.manual_seed(0)
    module = KINDS[kind](bidirectional=True)
    h = torch.randn(2, 4, 6)
    state = (h, torch.randn(2, 4, 6)) if kind == "lstm" else h
    x = torch.randn(7, 4, 3)
    torch.testing.assert_close(step_through(module, x, state)[0], module(x, state)[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(step_through(module, x[:, 0], None)[0], module(x[:, 0])[0], atol=1e-6, rtol=1e-5)
    packed = pack_padded_sequence(x, torch.tensor([3, 7, 1, 5]), enforce_sorted=False)
    fused, stepped = module(packed), step_through(module, packed, None)
    torch.testing.assert_close(
        pad_packed_sequence(stepped[0])[0], pad_packed_sequence(fused[0])[0], atol=1e-6, rtol=1e-5
    )
    for a, b in zip(_flat(stepped[1]), _flat(fused[1]), strict=True):
        torch.testing.assert_close(a, b[:, packed.sorted_indices][:, packed.unsorted_indices], atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projected_lstm_is_stepped() -> None:
    module = nn.LSTM(3, 6, num_layers=2, proj_size=4)
    x = torch.randn(7, 4, 3)
    torch.testing.assert_close(step_through(module, x, None)[0], module(x)[0], atol=1e-6, rtol=1e-5)


def test_a_step_that_differs_from_the_fused_kernel_is_refused() -> None:
    module = nn.LSTM(3, 6)
    with unrolled(module, tolerance=-1.0), pytest.raises(ModelError, match="fused kernel's output within -1"):
        module(torch.randn(7, 4, 3))
    assert "forward" not in vars(module)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_the_steps_sum_to_autograd_s_parameter_gradients(kind: str) -> None:
    torch.manual_seed(0)
    module = KINDS[kind](num_layers=2, bidirectional=True)
    x = torch.randn(9, 4, 3)
    shares: dict[str, list[torch.Tensor]] = {}
    names = {id(p): n for n, p in module.named_parameters()}
    with unrolled(module, on_gradient=lambda p, g: shares.setdefault(names[id(p)], []).append(g)):
        square(module(x)[0]).backward()
    module.zero_grad()
    square(module(x)[0]).backward()
    for name, parameter in module.named_parameters():
        assert len(shares[name]) == 9
        torch.testing.assert_close(sum(shares[name]), parameter.grad, atol=1e-7, rtol=1e-4)


class LastState(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)[0][:, -1]


@pytest.mark.parametrize("scale", [0.5, 0.9, 1.0, 1.3])
def test_a_normal_linear_recurrence_decays_by_its_radius(scale: float) -> None:
    """With relu in its linear range and W = s·I, ‖∂L/∂z_t‖ = s^(T−1−t)·‖∂L/∂z_{T−1}‖ exactly."""
    rnn = nn.RNN(2, 4, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(scale * torch.eye(4))
        rnn.bias_ih_l0.fill_(5.0)
    trace = measure_time_trace(LastState(rnn), torch.rand(8, 40, 2), lambda z: z.sum() / 8)
    (norms,) = (state.norms for state in trace.states if state.part == "hidden")
    assert norms[-1] == pytest.approx(2.0)  # ‖(1, 1, 1, 1)‖
    assert norms == pytest.approx([2.0 * scale ** (39 - t) for t in range(40)], rel=1e-4)
    decay = trace.state("module.l0").decay
    assert decay.rate == pytest.approx(scale, rel=1e-4)
    assert decay.horizon == (pytest.approx(-1 / math.log(scale), rel=1e-3) if scale < 1 else math.inf)


def test_a_non_normal_linear_recurrence_swells_before_it_vanishes() -> None:
    model = build_sequence_model("rnn-linear", features=1, outputs=1, length=100, hidden=2)
    with torch.no_grad():
        model.body.cell.recurrent.weight.copy_(torch.tensor([[0.9, 10.0], [0.0, 0.9]]))
        model.readout.weight.copy_(torch.tensor([[1.0, 0.0]]))
    trace = measure_time_trace(model, torch.rand(4, 100, 1), lambda o: o.mean())
    norms = trace.state("body.cell").norms[::-1]
    expected = [math.hypot(0.9**k, 10 * k * 0.9 ** (k - 1)) for k in range(100)]
    assert norms == pytest.approx(expected, rel=1e-4)
    assert max(norms) == pytest.approx(38.74, rel=1e-3)
    assert norms.index(max(norms)) in {9, 10}


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0, 3.0])
def test_the_additive_path_of_an_lstm_keeps_sigma_of_its_forget_bias_a_step(bias: float) -> None:
    """With W = 0 the only path from c_t to c_T is Π f = σ(b)^(T−t)."""
    lstm = nn.LSTM(2, 5, batch_first=True)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
    set_forget_bias(lstm, bias)
    trace = measure_time_trace(LastState(lstm), torch.rand(3, 30, 2), lambda h: h.sum() / 3)
    cell = trace.state("module.l0.cell")
    factor = 1 / (1 + math.exp(-bias))
    assert cell.decay.rate == pytest.approx(factor, rel=1e-4)
    (constants,) = trace.time_constants
    assert constants.steps == pytest.approx([-1 / math.log(factor)] * 5, rel=1e-5)
    assert half_life(bias) == pytest.approx(-math.log(2) / math.log(factor))
    forget = next(g for g in trace.gates if g.gate == "forget")
    assert forget.mean == pytest.approx(factor, rel=1e-5)
    assert forget.open == (1.0 if bias == 3.0 else 0.0)


def test_half_lives_named_in_the_text() -> None:
    assert half_life(1.0) == pytest.approx(2.2, abs=0.05)
    assert half_life(3.0) == pytest.approx(14.3, abs=0.1)


@pytest.mark.parametrize("name", CELLS)
def test_every_sequence_model_is_traced_and_left_as_found(name: str, untouched) -> None:
    model = build_sequence_model(name, features=2, outputs=1, length=12, hidden=8).train()
    model.readout.weight.requires_grad_(False)
    model.readout.bias.grad = torch.ones_like(model.readout.bias)
    x = torch.rand(4, 12, 2)
    with untouched(model):
        trace = measure_time_trace(model, x, square, label=name)
    assert trace.length == 12
    assert all(len(state.norms) == 12 for state in trace.states)
    assert trace.fused_gap is None or trace.fused_gap < 1e-5
    assert trace.parameter_gap is None or trace.parameter_gap < 1e-4
    again = TimeTrace.model_validate_json(trace.model_dump_json())
    assert again.model_dump_json() == trace.model_dump_json()


def test_a_cell_written_by_hand_is_followed_call_by_call() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.own = nn.LSTMCell(2, 4), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = c = z = torch.zeros(len(x), 4)
            for step in x.unbind(1):
                h, c = self.cell(step, (h, c))
                z = self.own(torch.cat([h.new_zeros(len(x), 2), z], dim=1)) + h
            return z

    model = Loop()
    x = torch.rand(3, 9, 2)
    trace = measure_time_trace(model, x, square, cells=["own"])
    assert {"cell", "cell.cell", "own"} <= {state.name for state in trace.states}
    assert {gate.gate for gate in trace.gates} == {"input", "forget", "output"}
    with pytest.raises(OptionError, match="got nowhere"):
        measure_time_trace(model, x, square, cells=["nowhere"])


def test_cells_and_fused_kernels_of_equal_weights_have_equal_gradients() -> None:
    fused = nn.GRU(2, 4, batch_first=True)

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(2, 4)
            for key, parameter in self.cell.named_parameters():
                parameter.data.copy_(getattr(fused, f"{key}_l0"))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.zeros(len(x), 4)
            for step in x.unbind(1):
                h = self.cell(step, h)
            return h

    x = torch.rand(3, 9, 2)
    a = measure_time_trace(LastState(fused), x, square)
    b = measure_time_trace(Loop(), x, square)
    assert a.state("module.l0").norms == pytest.approx(b.state("cell").norms, rel=1e-4)
    assert a.time_constants[0].steps == pytest.approx(b.time_constants[0].steps, rel=1e-4)


def test_a_loop_of_one_s_own_hands_in_its_states() -> None:
    z = torch.ones(4, 3, requires_grad=True)
    states = []
    for _ in range(20):
        z = 0.7 * z
        states.append(z)
    loss = z.sum() / 4
    gradients = measure_state_gradients(states, loss)
    assert gradients.decay.rate == pytest.approx(0.7)
    assert gradients.norms[-1] == pytest.approx(math.sqrt(3))
    loss.backward()
    with pytest.raises(ModelError, match="loss"):
        measure_state_gradients(states, loss.detach())


def test_the_backward_half_of_a_bidirectional_net_read_at_its_last_step_gets_no_gradient() -> None:
    """h[:, -1] of the reverse direction has seen one token only."""
    model = LastState(nn.GRU(2, 4, batch_first=True, bidirectional=True))
    trace = measure_time_trace(model, torch.rand(3, 9, 2), square)
    forward, reverse = (next(s for s in trace.states if s.reverse is r and s.part == "hidden") for r in (False, True))
    assert (forward.zero, reverse.zero) == (0, 8)


def test_attention_is_described_by_its_own_weights() -> None:
    torch.manual_seed(0)
    model = build_sequence_model("transformer", features=2, outputs=1, length=10, hidden=8)
    trace = measure_time_trace(model, torch.rand(4, 10, 2), square)
    assert len(trace.attention.layers) == 2
    assert trace.attention.path == 1
    assert sum(trace.attention.rollout) == pytest.approx(1.0)
    assert {"blocks.0", "blocks.1"} <= {s.name for s in trace.states}
    assert trace.head == "blocks.0"
    assert all(0 <= value <= 1.01 for value in trace.attention.layers[0].relative_entropy)


def test_uniform_attention_has_the_greatest_entropy() -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = torch.zeros_like(x)[:, None]
            return F.scaled_dot_product_attention(q, q, x[:, None])[:, 0]

    trace = measure_time_trace(Plain(), torch.rand(4, 10, 2), square)
    (layer,) = trace.attention.layers
    assert layer.entropy == pytest.approx((math.log(10),))
    assert layer.relative_entropy == pytest.approx((1.0,))
    assert layer.distance == pytest.approx((3.3,))  # mean |i − j| over 10 × 10


@pytest.mark.parametrize("causal", [False, True])
def test_attention_weights_reproduce_the_fused_function(causal: bool) -> None:
    q, k, v = torch.randn(3, 2, 4, 6, 5).unbind(0)
    mask = None if causal else torch.rand(6, 6) > 0.3
    if mask is not None:
        mask.fill_diagonal_(True)
    weights = attention_weights(q, k, v, attn_mask=mask, is_causal=causal)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    torch.testing.assert_close(weights @ v, expected, atol=1e-5, rtol=1e-4)


def test_bad_input_is_one_line() -> None:
    x = torch.rand(3, 9, 2)
    with pytest.raises(ModelError, match=r"expected nn\.RNN, nn\.GRU, nn\.LSTM, cells .* got Linear with none"):
        measure_time_trace(nn.Linear(2, 2), x, square)
    with pytest.raises(DataError, match=r"inputs: expected a batch of sequences"):
        measure_time_trace(nn.GRU(2, 2), torch.rand(0, 9, 2), square)
    with pytest.raises(ModelError, match=r"model\(inputs\)"):
        measure_time_trace(LastState(nn.GRU(5, 2, batch_first=True)), x, square)
    with pytest.raises(ModelError, match="loss: expected one number"):
        measure_time_trace(LastState(nn.GRU(2, 2, batch_first=True)), x, lambda o: o)
    with pytest.raises(ModelError, match="cut off from its inputs"):
        measure_time_trace(LastState(nn.GRU(2, 2, batch_first=True)), x, lambda o: square(o).detach())
