"""The recurrence z_{t+1} = φ(W z_t + U x_t): bounds on powers of W, and singular values of Jacobian products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from assay.diagnostics.unroll import Track
from assay.errors import ModelError
from assay.models.sequence import PlainCell
from assay.records.recurrence import GateStatistics, JacobianProduct, RecurrentMatrix, TimeConstants

_ONE = 1e-5  # an orthogonal matrix in float32 is orthogonal to about this
_GATES = {nn.RNN: ("",), nn.GRU: ("reset", "update", "new"), nn.LSTM: ("input", "forget", "cell", "output")}


def analyse_matrix(W: Tensor, *, steps: int, name: str = "W", gate: str = "") -> RecurrentMatrix:
    """ρ(W), ‖W‖₂ and the bounds ρ^k ≤ ‖W^k‖₂ ≤ ‖W‖₂^k at k = 1 … ``steps`` (at most 60 of them kept).

    Powers are taken in float64 with their scale kept as a logarithm, so they neither overflow nor underflow.
    Raises :class:`ModelError` unless ``W`` (H, H) is square and finite.
    """
    W = W.detach().cpu().double()
    if W.ndim != 2 or W.shape[0] != W.shape[1] or not bool(W.isfinite().all()):
        raise ModelError(name, expected="a finite square matrix", got=f"shape {tuple(W.shape)}")
    eigenvalues = torch.linalg.eigvals(W).abs()
    radius, norm = float(eigenvalues.max()), float(torch.linalg.matrix_norm(W, 2))
    frobenius = float(W.square().sum())
    departure = math.sqrt(max(0.0, frobenius - float(eigenvalues.square().sum())) / frobenius) if frobenius else 0.0
    logs = log_power_norms(W, steps)
    shown = sorted({round(1 + i * (steps - 1) / 59) for i in range(60)}) if steps > 60 else list(range(1, steps + 1))
    peak_at = max(range(steps), key=lambda i: logs[i]) + 1
    peak = math.exp(min(700.0, logs[peak_at - 1]))
    return RecurrentMatrix(
        name=name,
        gate=gate,
        size=W.shape[0],
        spectral_radius=radius,
        norm=norm,
        non_normality=departure,
        k=tuple(shown),
        log_lower=tuple(k * _log(radius) for k in shown),
        log_power=tuple(logs[k - 1] for k in shown),
        log_upper=tuple(k * _log(norm) for k in shown),
        peak=peak,
        peak_at=peak_at,
        proves=_conclusions(radius, norm, peak, peak_at),
    )


def log_power_norms(W: Tensor, steps: int) -> list[float]:
    """ln ‖W^k‖₂ for k = 1 … steps; −inf once a nilpotent power is zero."""
    power, scale, logs = torch.eye(W.shape[0], dtype=torch.float64), 0.0, []
    for _ in range(steps):
        power, scale, log = _rescale(W @ power, scale)
        logs.append(log)
    return logs


def _rescale(product: Tensor, scale: float) -> tuple[Tensor, float, float]:
    """A product e^scale·P with ‖P‖₂ = 1, its new scale, and ln of its norm; P = 0 stays as it is, with −inf."""
    size = float(torch.linalg.matrix_norm(product, 2))
    log = scale + _log(size)
    return (product / size, log, log) if size > 0 else (product, scale, log)


def _conclusions(radius: float, norm: float, peak: float, peak_at: int) -> tuple[str, ...]:
    statements = []
    if abs(radius - 1) < _ONE:
        statements.append("ρ = 1: neither vanishing nor exploding is settled by the radius alone.")
    elif radius < 1:
        statements.append(f"ρ = {radius:.3f} < 1: W^k → 0, so a linear recurrence forgets; necessary and sufficient.")
    else:
        statements.append(f"ρ = {radius:.3f} > 1: ‖W^k‖ grows without bound in a linear recurrence.")
    if abs(norm - 1) < _ONE:
        statements.append("‖W‖ = 1: no product of Jacobians can grow when slopes are at most 1.")
    elif norm < 1:
        statements.append(f"‖W‖ = {norm:.3f} < 1: sufficient for vanishing, also with tanh or relu (slopes at most 1).")
    else:
        statements.append(f"‖W‖ = {norm:.3f} > 1: necessary for exploding, not sufficient; alone it settles nothing.")
    if radius < 1 < norm and peak > 1.5 and peak_at > 1:
        statements.append(f"Non-normal: ‖W^k‖ climbs to {peak:.3g} at k = {peak_at} before it vanishes.")
    return tuple(statements)


def recurrent_matrices(module: nn.RNNBase, *, name: str, steps: int) -> tuple[RecurrentMatrix, ...]:
    """Every W_hh of a stacked, bidirectional RNN, GRU or LSTM, gate by gate (projected LSTMs: W_h· times W_hr)."""
    matrices = []
    gates = next((names for kind, names in _GATES.items() if isinstance(module, kind)), ("",))
    for layer in range(module.num_layers):
        for suffix in ("", "_reverse") if module.bidirectional else ("",):
            W = getattr(module, f"weight_hh_l{layer}{suffix}").detach()
            if module.proj_size:
                W = W @ getattr(module, f"weight_hr_l{layer}{suffix}").detach()
            for gate, part in zip(gates, W.chunk(len(gates)), strict=True):
                label = f"{name}.l{layer}{suffix.replace('_', '.')}"
                matrices.append(analyse_matrix(part, steps=steps, name=label, gate=gate))
    return tuple(matrices)


def jacobian_product(
    step: Callable[[Tensor, int], Tensor], states: Sequence[Tensor], *, name: str = "state"
) -> JacobianProduct:
    """Extreme singular values of Π J_s, s = T−1 … t+1, J_s = ∂z_s/∂z_{s−1}, along one trajectory.

    ``states`` are z_0 … z_{T−1}, each (S,), and ``step(z, t)`` gives z_t from z_{t−1}. The running product is rescaled
    at every step; the smallest singular value comes from the product of inverses, and is 0 (log −inf) where one
    Jacobian is singular. Reference: Pascanu, Mikolov & Bengio, *On the difficulty of training RNNs* (2013), eq. 5.
    """
    total = len(states)
    product = inverse = torch.eye(states[0].numel(), dtype=torch.float64)
    log_scale, inverse_log_scale, largest, smallest = 0.0, 0.0, [0.0], [0.0]
    for t in range(total - 1, 0, -1):
        J = torch.func.jacrev(lambda z, t=t: step(z, t))(states[t - 1].detach()).cpu().double()
        product, log_scale, log = _rescale(product @ J, log_scale)
        largest.append(log)
        back, singular = torch.linalg.inv_ex(J)
        if int(singular) or not bool(back.isfinite().all()) or not math.isfinite(inverse_log_scale):
            inverse_log_scale = math.inf
            smallest.append(-math.inf)
            continue
        inverse, inverse_log_scale, log = _rescale(back @ inverse, inverse_log_scale)
        smallest.append(-log)
    return JacobianProduct(
        name=name, log_largest=tuple(largest), log_smallest=tuple(smallest), lyapunov=largest[-1] / max(1, total - 1)
    )


def plain_cells(model: nn.Module, tracks: Sequence[Track]) -> Iterator[tuple[str, Tensor]]:
    """Name and W of every recorded cell with one recurrent matrix: ``nn.RNNCell``, and :class:`PlainCell`."""
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
    statistics = []
    for gate, steps in track.gates.items():
        values = torch.stack(steps).flatten().cpu().double()
        statistics.append(
            GateStatistics(
                name=track.name,
                gate=gate,
                mean=float(values.mean()),
                open=float((values > 0.9).double().mean()),
                shut=float((values < 0.1).double().mean()),
                quantiles=tuple(_quantile(values, q) for q in QUANTILES),
            )
        )
    return statistics


def time_constants(track: Track) -> TimeConstants | None:
    """−1/ln f̄_j for each unit, f̄_j = exp(mean ln f_j) over steps and samples; None for a layer that has no such gate.

    c_T depends on c_t along the additive path by Π_s f_s, so the geometric mean is the rate a step. A bias b and no
    input give σ(b): time constant −1/ln σ(b), half-life ln 2 times that.
    """
    steps = track.gates.get("forget", track.gates.get("update"))
    if not steps:
        return None
    logs = torch.stack(steps).cpu().double().clamp_min(1e-30).log().mean(dim=(0, 1))  # (T, B, H) -> (H,)
    taus = (-1 / logs.clamp_max(-1e-12)).sort().values
    return TimeConstants(name=track.name, steps=tuple(taus.tolist()), median=float(taus.quantile(0.5)))


def _quantile(values: Tensor, q: float) -> float:
    """``Tensor.quantile`` refuses more than 16 million entries; the order statistic does not."""
    return float(values.kthvalue(1 + round(q * (len(values) - 1))).values)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
