"""How long the gates of an LSTM or a GRU let things last."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.diagnostics.unroll import Track
from assay.records.recurrence import GateStatistics, TimeConstants

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
