"""Recurrences written by hand: cells that the model calls once a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from assay.diagnostics.unroll import Track, gru_step, lstm_step
from assay.errors import OptionError
from assay.models.sequence import PlainCell
from assay.records.recurrence import GateStatistics, TimeConstants


@contextmanager
def watched_cells(model: nn.Module, names: Sequence[str]) -> Iterator[list[Track]]:
    """Follow ``nn.RNNCell``, ``nn.GRUCell``, ``nn.LSTMCell`` and the modules called ``names``, one state a call.

    A cell returns its new state (B, H), or a tuple that starts with it and, for two tensors of one shape, goes on with
    its cell state. Raises :class:`OptionError` for a name the model does not have.
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise OptionError("cells", expected=f"module names such as {', '.join(list(modules)[1:4])}", got=name)
    chosen = {m: n for n, m in modules.items() if n in names or isinstance(m, nn.RNNCellBase)}
    tracks: dict[nn.Module, Track] = {}

    found: list[Track] = []

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        if module not in tracks:
            tracks[module] = Track(chosen[module] or "(model)", len(tracks), reverse=False)
            found.append(tracks[module])
        track = tracks[module]
        parts = output if isinstance(output, tuple) else (output,)
        states = [part for part in parts if isinstance(part, Tensor) and part.is_floating_point()][:2]
        for kept, state in zip((track.hidden, track.cell), states, strict=False):
            if state.requires_grad:
                state.retain_grad()
            kept.append(state)
        for gate, value in _gates(module, args).items():
            track.gates.setdefault(gate, []).append(value)

    handles = [module.register_forward_hook(after) for module in chosen]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _gates(module: nn.Module, args: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The gates of torch's own cells, computed again from what the cell was called with."""
    if not isinstance(module, (nn.LSTMCell, nn.GRUCell)) or args[0].ndim != 2:
        return {}
    weights = {"ih": module.weight_ih, "hh": module.weight_hh}
    if module.bias:
        weights |= {"b_ih": module.bias_ih, "b_hh": module.bias_hh}
    zeros = args[0].new_zeros(args[0].shape[0], module.hidden_size)
    state = args[1] if len(args) > 1 and args[1] is not None else None
    if isinstance(module, nn.LSTMCell):
        h, c = (zeros, zeros) if state is None else state
        return lstm_step(args[0], h, c, weights)[2]
    return gru_step(args[0], zeros if state is None else state, weights)[1]


def plain_cells(model: nn.Module, tracks: Sequence[Track]) -> Iterator[tuple[str, Tensor]]:
    """Name and W of every followed cell with one recurrent matrix: ``nn.RNNCell``, and the plain cell of our own."""
    modules = dict(model.named_modules())
    for track in tracks:
        cell = modules.get(track.name)
        if isinstance(cell, nn.RNNCell):
            yield track.name, cell.weight_hh
        elif isinstance(cell, PlainCell):
            yield track.name, cell.recurrent.weight


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def describe_gates(track: Track) -> list[GateStatistics]:
    """Mean, saturation and quantiles of every gate of one layer over steps, samples and units."""
    found = []
    for gate, steps in track.gates.items():
        values = torch.stack(steps).flatten().double()
        found.append(
            GateStatistics(
                name=track.name,
                gate=gate,
                mean=float(values.mean()),
                open=float((values > 0.9).double().mean()),
                shut=float((values < 0.1).double().mean()),
                quantiles=tuple(_quantile(values, q) for q in QUANTILES),
            )
        )
    return found


def time_constants(track: Track) -> TimeConstants | None:
    """−1/ln f̄_j for each unit, f̄_j = exp(mean ln f_j) over steps and samples; None for a layer that has no such gate.

    c_T depends on c_t along the additive path by Π_s f_s, so the geometric mean is the rate a step. A bias b and no
    input give σ(b): time constant −1/ln σ(b), half-life ln 2 times that.
    """
    steps = track.gates.get("forget", track.gates.get("update"))
    if not steps:
        return None
    logs = torch.stack(steps).double().clamp_min(1e-30).log().mean(dim=(0, 1))  # (T, B, H) -> (H,)
    taus = (-1 / logs.clamp_max(-1e-12)).sort().values
    return TimeConstants(name=track.name, steps=tuple(taus.tolist()), median=float(taus.quantile(0.5)))


def _quantile(values: Tensor, q: float) -> float:
    """``Tensor.quantile`` refuses more than 16 million entries; the order statistic does not."""
    return float(values.kthvalue(1 + round(q * (len(values) - 1))).values)
