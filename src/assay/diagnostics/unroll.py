"""Fused recurrent kernels, run step by step so that every hidden state is a node of the graph and has a gradient.

On fused modules ``output.retain_grad()`` gives only the direct partial derivative: under a loss of the last step it is
zero for every earlier one. Here the weights of each step are nodes of the graph as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from assay.errors import ModelError, OptionError
from assay.runtime import hooked, uncompiled

Sequences = Tensor | PackedSequence
State = Tensor | tuple[Tensor, Tensor]
OnGradient = Callable[[nn.Parameter, Tensor], None]


@dataclass(eq=False)
class Track:
    """One layer in one direction: states and gates in the order of time t = 0 … T−1, whatever the direction.

    ``hidden[t]`` (B, H) and, for an LSTM, ``cell[t]`` (B, H) belong to the graph; ``gates[name]`` are T
    detached (B, H).
    """

    name: str
    layer: int
    reverse: bool
    hidden: list[Tensor] = field(default_factory=list)
    cell: list[Tensor] = field(default_factory=list)
    gates: dict[str, list[Tensor]] = field(default_factory=dict)
    inputs: list[Tensor] = field(default_factory=list)


@dataclass(eq=False)
class Unrolled:
    """One call of one recurrent module: its tracks and how far its output is from the fused kernel's."""

    name: str
    module: nn.RNNBase
    tracks: list[Track]
    gap: float


def cell_step(
    module: nn.Module, x: Tensor, h: Tensor, c: Tensor, w: dict[str, Tensor]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """One step of the kind of ``module`` with weights ``w``: h', c' (c itself but for an LSTM) and gates, all (B, ·).

    RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or the rectifier in place of tanh.
    GRU: r, z = σ(·); n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)); h' = (1−z) ⊙ n + z ⊙ h.
    LSTM: i, f, g, o in this order; c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c'), projected where the module projects.
    """
    from_x, from_h = F.linear(x, w["ih"], w.get("b_ih")), F.linear(h, w["hh"], w.get("b_hh"))
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        i, f, g, o = (from_x + from_h).chunk(4, dim=1)
        i, f, o = i.sigmoid(), f.sigmoid(), o.sigmoid()
        c = f * c + i * g.tanh()
        h = o * c.tanh()
        return (F.linear(h, w["hr"]) if "hr" in w else h), c, {"input": i, "forget": f, "output": o}
    if isinstance(module, nn.GRU | nn.GRUCell):
        (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3, dim=1), from_h.chunk(3, dim=1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        n = (xn + r * hn).tanh()
        return (1 - z) * n + z * h, c, {"reset": r, "update": z}
    summed = from_x + from_h
    return (summed.relu() if module.nonlinearity == "relu" else summed.tanh()), c, {}


@contextmanager
def unrolled(
    model: nn.Module, *, tolerance: float = 1e-3, on_gradient: OnGradient | None = None
) -> Iterator[list[Unrolled]]:
    """Inside the block every ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` of ``model`` runs token by token.

    Yields the list of calls, filled as the model runs. Each output is compared with the fused kernel's on the same
    input and a relative difference above ``tolerance`` raises :class:`ModelError`. ``on_gradient(parameter, gradient)``
    is called in the backward pass with each single step's contribution. Stacked, bidirectional, projected, packed and
    unbatched use are supported; dropout between layers is not, so the model must be in evaluation mode.
    """
    calls: list[Unrolled] = []
    stock = {nn.RNN.forward, nn.GRU.forward, nn.LSTM.forward}
    modules = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.RNNBase) and type(m).forward in stock]
    modules = [(name, m) for name, m in modules if "forward" not in vars(m)]  # a user's own stays
    for name, module in modules:
        module.forward = _stepper(name or "(model)", module, calls, tolerance, on_gradient)
    try:
        yield calls
    finally:
        for _, module in modules:
            del module.forward


def _stepper(
    name: str, module: nn.RNNBase, calls: list[Unrolled], tolerance: float, on_gradient: OnGradient | None
) -> Callable[..., tuple[Sequences, State]]:
    fused = type(module).forward

    def forward(x: Sequences, state: State | None = None) -> tuple[Sequences, State]:
        with torch.no_grad():
            expected, _ = fused(module, x, state)
        output, final, tracks = step_through(module, x, state, name=name, on_gradient=on_gradient)
        gap = _relative_gap(_data(output), _data(expected))
        if not gap <= tolerance and bool(_data(expected).isfinite().all()):
            bound = f"the fused kernel's output within {tolerance:g} when stepped"
            raise ModelError(name, expected=bound, got=f"{gap:.2g}")
        calls.append(Unrolled(name, module, tracks, gap))
        return output, final

    return forward


def step_through(
    module: nn.RNNBase, x: Sequences, state: State | None, *, name: str = "", on_gradient: OnGradient | None = None
) -> tuple[Sequences, State, list[Track]]:
    """The forward pass one step at a time: output and final state as the module returns them, and the tracks."""
    lengths: Tensor | None = None
    if isinstance(x, PackedSequence):
        sequence, lengths = pad_packed_sequence(x)
    elif x.ndim == 2:
        sequence = x.unsqueeze(1)
    else:
        sequence = x.transpose(0, 1) if module.batch_first else x
    steps = len(sequence)  # (T, B, F)
    mask = None if lengths is None else (torch.arange(steps)[:, None] < lengths[None]).to(sequence.device)[..., None]
    directions = 2 if module.bidirectional else 1
    hidden, cell = _initial_states(module, state, sequence, isinstance(x, Tensor) and x.ndim == 2)
    tracks, finals = [], []
    inputs = list(sequence.unbind(0))
    for layer in range(module.num_layers):
        outputs: list[list[Tensor]] = []
        for direction in range(directions):
            place = layer * directions + direction
            label = f"{name}.l{layer}" + (".reverse" if direction else "")
            track = Track(label, layer, bool(direction), inputs=inputs)
            finals.append(_run(module, track, hidden[place], cell[place], mask, on_gradient))
            outputs.append(track.hidden)
            tracks.append(track)
        inputs = [torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True)]
    output = torch.stack(inputs)
    if mask is not None:
        output = output * mask
    h, c = (torch.stack(states) for states in zip(*finals, strict=True))
    return *_pack_output(module, x, output, h, c, lengths), tracks


@contextmanager
def record_cells(model: nn.Module, names: Sequence[str]) -> Iterator[list[Track]]:
    """Record ``nn.RNNCell``, ``nn.GRUCell``, ``nn.LSTMCell`` and the modules called ``names``, one state a call.

    A cell returns its new state (B, H), or a tuple that starts with it and, for two tensors of one shape, goes on with
    its cell state. Raises :class:`OptionError` for a name the model does not have.
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise OptionError("cells", expected=f"module names such as {', '.join(list(modules)[1:4])}", got=name)
    chosen = {m: n for n, m in modules.items() if n in names or isinstance(m, nn.RNNCellBase)}
    tracks: dict[nn.Module, Track] = {}
    recorded: list[Track] = []

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        if module not in tracks:
            tracks[module] = Track(chosen[module] or "(model)", len(tracks), reverse=False)
            recorded.append(tracks[module])
        track = tracks[module]
        parts = output if isinstance(output, tuple) else (output,)
        states = [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()][:2]
        for sequence, state in zip((track.hidden, track.cell), states, strict=False):
            sequence.append(retain_gradient(state))
        for gate, value in _gates(module, args).items():
            track.gates.setdefault(gate, []).append(value)

    with hooked(*(module.register_forward_hook(after) for module in chosen)), uncompiled():
        yield recorded


@torch.no_grad()
def _gates(module: nn.Module, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The gates of torch's own cells, computed again from the arguments of the call."""
    if not isinstance(module, (nn.LSTMCell, nn.GRUCell)) or args[0].ndim != 2:
        return {}
    weights = {"ih": module.weight_ih, "hh": module.weight_hh}
    if module.bias:
        weights |= {"b_ih": module.bias_ih, "b_hh": module.bias_hh}
    zeros = args[0].new_zeros(args[0].shape[0], module.hidden_size)
    state = args[1] if len(args) > 1 and args[1] is not None else (zeros, zeros)
    h, c = (state, zeros) if isinstance(state, Tensor) else state
    return cell_step(module, args[0], h, c, weights)[2]


def layer_step(module: nn.RNNBase, track: Track, *, sample: int) -> Callable[[Tensor, int], Tensor]:
    """z_t as a function of z_{t−1}, z = h or (h, c) joined, for one sample's own inputs to this layer."""
    weights = {key: value.detach() for key, value in _parameters(module, track.layer, reverse=False).items()}
    width = track.hidden[0].shape[1]

    def step(z: Tensor, t: int) -> Tensor:
        x, z = track.inputs[t][sample : sample + 1].detach(), z[None]
        return torch.cat(cell_step(module, x, z[:, :width], z[:, width:], weights)[:2], dim=1)[0]

    return step


def _initial_states(
    module: nn.RNNBase, state: State | None, sequence: Tensor, unbatched: bool
) -> tuple[Tensor, Tensor]:
    """Initial h and c, (layers·directions, B, H) each; zeros where none were given."""
    places, batch = module.num_layers * (2 if module.bidirectional else 1), sequence.shape[1]
    size = module.proj_size or module.hidden_size
    given_h, given_c = state if isinstance(state, tuple) else (state, None)
    if unbatched and given_h is not None:
        given_h, given_c = given_h.unsqueeze(1), None if given_c is None else given_c.unsqueeze(1)
    hidden = sequence.new_zeros(places, batch, size) if given_h is None else given_h
    cell = sequence.new_zeros(places, batch, module.hidden_size) if given_c is None else given_c
    return hidden, cell


def _run(
    module: nn.RNNBase, track: Track, h: Tensor, c: Tensor, mask: Tensor | None, on_gradient: OnGradient | None
) -> tuple[Tensor, Tensor]:
    """One layer, one direction, all steps; steps beyond a sample's length leave its state as it is."""
    parameters = _parameters(module, track.layer, reverse=track.reverse)
    order = range(len(track.inputs))
    for t in reversed(order) if track.reverse else order:
        weights = {key: _view_of_step(parameter, on_gradient) for key, parameter in parameters.items()}
        new_h, new_c, gates = cell_step(module, track.inputs[t], h, c, weights)
        h, c = (new_h, new_c) if mask is None else (torch.where(mask[t], new_h, h), torch.where(mask[t], new_c, c))
        track.hidden.append(retain_gradient(h))
        if isinstance(module, nn.LSTM):
            track.cell.append(retain_gradient(c))
        for key, gate in gates.items():
            track.gates.setdefault(key, []).append(gate.detach())
    if track.reverse:
        for states in (track.hidden, track.cell, *track.gates.values()):
            states.reverse()
    return h, c


def _parameters(module: nn.RNNBase, layer: int, *, reverse: bool) -> dict[str, Tensor]:
    suffix = f"l{layer}" + ("_reverse" if reverse else "")
    names = {"ih": "weight_ih_", "hh": "weight_hh_", "b_ih": "bias_ih_", "b_hh": "bias_hh_", "hr": "weight_hr_"}
    return {key: getattr(module, prefix + suffix) for key, prefix in names.items() if hasattr(module, prefix + suffix)}


def _view_of_step(parameter: Tensor, on_gradient: OnGradient | None) -> Tensor:
    """A view that only this step uses, so that its gradient is this step's summand of the whole."""
    if on_gradient is None or not parameter.requires_grad:
        return parameter
    view = parameter.view_as(parameter)
    view.register_hook(lambda gradient: on_gradient(parameter, gradient))  # type: ignore[no-untyped-call, arg-type]
    return view


def retain_gradient(state: Tensor) -> Tensor:
    """``state``, whose ``.grad`` the backward pass will fill; one without a gradient stays as it is."""
    if state.requires_grad:
        state.retain_grad()
    return state


def _pack_output(
    module: nn.RNNBase, x: Sequences, output: Tensor, h: Tensor, c: Tensor, lengths: Tensor | None
) -> tuple[Sequences, State]:
    packed: Sequences
    if isinstance(x, PackedSequence):
        assert lengths is not None
        packed = pack_padded_sequence(output, lengths.cpu(), enforce_sorted=x.sorted_indices is None)
    elif x.ndim == 2:
        packed, h, c = output.squeeze(1), h.squeeze(1), c.squeeze(1)
    else:
        packed = output.transpose(0, 1) if module.batch_first else output
    return packed, ((h, c) if isinstance(module, nn.LSTM) else h)


def _data(output: Sequences) -> Tensor:
    return output.data if isinstance(output, PackedSequence) else output


def _relative_gap(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    scale = b.detach().abs().max().clamp_min(1e-12)
    return float((a.detach() - b).abs().max() / scale)
