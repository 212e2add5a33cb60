"""Gradient flow over time: ‖∂L/∂z_t‖ for every step t of any sequence model, with its recurrent weights and gates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import evenly_spaced
from assay.diagnostics.attention import describe_attention, record_attention
from assay.diagnostics.batches import backward, example, require_gradients, square_sum
from assay.diagnostics.recurrence import (
    analyse_matrix,
    describe_gates,
    jacobian_product,
    plain_cells,
    recurrent_matrices,
    time_constants,
)
from assay.diagnostics.unroll import Track, Unrolled, layer_step, record_cells, unrolled
from assay.errors import DataError, ModelError
from assay.models.calls import calling, differentiate, refusing
from assay.records.recurrence import Decay, JacobianProduct, StateGradients, TimeTrace
from assay.runtime import preserved
from assay.runtime.model_state import ModelState

_FLAT = math.log(2)


def fit_decay(norms: Sequence[float]) -> Decay:
    """Fit norm(d) = a·g^d and norm(d) = a·(1+d)^−p to ``norms[d]``, d = 0, 1, … the distance from the loss.

    Least squares on logarithms over the finite norms above zero. The horizon −1/ln g is in steps.
    """
    values = np.asarray(norms, dtype=np.float64)
    usable = np.isfinite(values) & (values > 0)
    d, y = np.nonzero(usable)[0].astype(np.float64), np.log(values[usable])
    if len(y) < 3:
        nan = math.nan
        return Decay(
            law="undefined", rate=nan, exponent=nan, r2_exponential=nan, r2_polynomial=nan, horizon=nan, points=len(y)
        )
    slope, r2_exponential, residual_exponential = _line(d, y)
    exponent, r2_polynomial, residual_polynomial = _line(np.log1p(d), y)
    rate = math.exp(min(slope, 700.0))
    change = abs(slope) * (d[-1] - d[0])
    better = "exponential" if residual_exponential <= residual_polynomial else "polynomial"
    return Decay(
        law="flat" if max(change, y.max() - y.min()) < _FLAT else better,
        rate=rate,
        exponent=-exponent,
        r2_exponential=r2_exponential,
        r2_polynomial=r2_polynomial,
        horizon=-1 / slope if slope < 0 else math.inf,
        points=len(y),
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope, share of the variance explained, and residual sum of squares of the best straight line."""
    centred, total = x - x.mean(), float(((y - y.mean()) ** 2).sum())
    slope = float((centred * y).sum() / max(float((centred**2).sum()), 1e-300))
    residual = float(((y - y.mean() - slope * centred) ** 2).sum())
    return slope, 1 - residual / total if total > 0 else 1.0, residual


SequenceLoss = Callable[[Tensor], Tensor]


@checked
def measure_time_trace(
    model: nn.Module,
    inputs: Tensor,
    loss: SequenceLoss,
    *,
    label: str = "model",
    task: str = "",
    batch_first: bool = True,
    cells: Sequence[str] = (),
    powers: int = 0,
    jacobians: int = 1,
    tolerance: float = 1e-3,
    forward: Callable[[Tensor], Any] | None = None,
) -> TimeTrace:
    """Run ``model`` on ``inputs`` step by step, differentiate ``loss(model(inputs))``, and record every ∂L/∂z_t.

    ``inputs`` (N, T, F), (N, T) of tokens, or images a sequence classifier reads; time first with
    ``batch_first=False``. ``loss`` takes the model's output and returns the *mean* over the N samples; norms are of the
    per-sample losses, √(mean_i ‖∂ℓ_i/∂z_{t,i}‖²).
    Fused ``nn.RNN``, ``nn.GRU`` and ``nn.LSTM`` are unrolled and their output and parameter gradients compared with
    the fused kernels'; ``nn.RNNCell`` and its kin, and modules named in ``cells``, are recorded call by call; blocks
    around scaled dot-product attention position by position. ``forward`` calls the model, where that takes more than
    ``model(inputs)``. The recurrent matrices are analysed up to the power
    ``powers`` (the sequence's length when 0), the Jacobian products along the trajectories of ``jacobians`` samples.
    The model runs in evaluation mode and is left as found. Raises :class:`ModelError` where nothing recurrent and no
    attention is found, or the loss cannot be differentiated; :class:`DataError` for an empty batch.
    """
    if inputs.ndim < 2 or inputs.shape[0] == 0 or inputs.shape[1] == 0:
        raise DataError("inputs", expected="a batch of sequences (N, T, …), neither empty", got=tuple(inputs.shape))
    n = inputs.shape[0 if batch_first or inputs.ndim > 3 else 1]
    summands: dict[int, Tensor] = {}

    def add_summand(parameter: nn.Parameter, gradient: Tensor) -> None:
        summands[id(parameter)] = summands.get(id(parameter), 0) + gradient.detach()

    with preserved(model, training=False), torch.enable_grad(), ExitStack() as stack:
        require_gradients(model)
        calls = stack.enter_context(unrolled(model, tolerance=tolerance, on_gradient=add_summand))
        tracks = stack.enter_context(record_cells(model, cells))
        maps = stack.enter_context(record_attention(model))
        leaves = inputs.detach().clone().requires_grad_(True) if inputs.is_floating_point() else inputs
        value = _loss_of(model, leaves, loss, forward)
        backward(value, model)
        every = [track for call in calls for track in call.tracks] + tracks
        if not every and not maps.layers:
            raise ModelError(
                "model",
                expected="nn.RNN, nn.GRU, nn.LSTM, cells (nn.RNNCell, …, or named in `cells`), or attention",
                got=f"{type(model).__name__} with none of them in its forward pass",
            )
        states = [state for track in every for state in _of_track(track, n)]
        states += [
            _series(block, list(tensor.grad.unbind(axis)), n, part="position")
            for block, tensor, axis in maps.blocks.values()
            if tensor.grad is not None
        ]
        if leaves.requires_grad and leaves.grad is not None and leaves.ndim == 3:
            states.append(_series("input", list(leaves.grad.unbind(1 if batch_first else 0)), n, part="input"))
        products = [p for call in calls for p in _products(call, jacobians)]
        stepped = {id(p): summands[id(p)] for p in model.parameters() if id(p) in summands}
    gap = _parameter_gap(model, inputs, loss, stepped, forward) if stepped else None
    length = max(len(state.norms) for state in states)
    powers = powers or length
    modules = {call.name: call.module for call in calls}
    matrices = [m for key, module in modules.items() for m in recurrent_matrices(module, name=key, steps=powers)]
    matrices += [analyse_matrix(W, steps=powers, name=name) for name, W in plain_cells(model, tracks)]
    return TimeTrace(
        label=label,
        task=task,
        length=length,
        n=n,
        loss=float(value.detach()),
        head=_head(states),
        states=tuple(states),
        fused_gap=max((call.gap for call in calls), default=None),
        parameter_gap=gap,
        matrices=tuple(matrices),
        jacobians=tuple(products),
        gates=tuple(g for track in every for g in describe_gates(track)),
        time_constants=tuple(c for track in every if (c := time_constants(track)) is not None),
        attention=describe_attention(maps) if maps.layers else None,
    )


@checked
def measure_state_gradients(
    states: Sequence[Tensor], loss: Tensor, *, name: str = "state", samples: int | None = None
) -> StateGradients:
    """‖∂L/∂z_t‖ of the states (B, …) of any loop; ``loss`` is the mean over its samples.

    The graph is kept, so ``loss.backward()`` still works afterwards; no ``.grad`` is written.
    Raises :class:`ModelError` when the loss has no gradient at all.
    """
    if not loss.requires_grad:
        raise ModelError("loss", expected="a loss that depends on the states", got="one cut off from the graph")
    n = states[0].shape[0] if samples is None else samples
    with refusing(loss, expected="a loss that can be differentiated", where="loss"):
        gradients = torch.autograd.grad(loss, list(states), retain_graph=True, allow_unused=True)
    return _series(name, list(gradients), n, part="hidden")


def _loss_of(
    model: nn.Module, inputs: Tensor, loss: SequenceLoss, forward: Callable[[Tensor], Any] | None = None
) -> Tensor:
    """``loss(model(inputs))``, one number; whatever either raises becomes one :class:`ModelError`."""
    expected = f"a sequence model that takes one tensor {tuple(inputs.shape)}"
    with refusing(model, expected=expected, where="model(inputs)"):
        output = (forward or model)(inputs)
    with refusing(model, expected="a function of the model's output", where="loss"):
        value = loss(output)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ModelError("loss", expected="one number, the mean over samples", got=getattr(value, "shape", type(value)))
    return value


def _of_track(track: Track, n: int) -> list[StateGradients]:
    series = [_series(track.name, [h.grad for h in track.hidden], n, part="hidden", reverse=track.reverse)]
    if track.cell:
        cells = [c.grad for c in track.cell]
        series.append(_series(f"{track.name}.cell", cells, n, part="cell", reverse=track.reverse))
    return series


def _series(name: str, gradients: list[Tensor | None], n: int, *, part: str, reverse: bool = False) -> StateGradients:
    """Gradients of the mean loss, one a step, to norms of the per-sample losses and the law they follow."""
    squares = [0.0 if gradient is None else square_sum(gradient) for gradient in gradients]
    norms = [math.sqrt(n * each) for each in squares]  # ∂ℓ_i = n·∂L: √(Σ_i ‖n ∂L‖² / n)
    bad = [t for t, norm in enumerate(norms) if not math.isfinite(norm)]
    from_loss = norms if reverse else norms[::-1]
    first_nonzero = next((d for d, norm in enumerate(from_loss) if norm > 0), 0)
    return StateGradients(
        name=name,
        part=part,
        reverse=reverse,
        norms=tuple(norms),
        decay=fit_decay(from_loss[first_nonzero:]),
        zero=norms.count(0.0),
        non_finite=len(bad),
        first_non_finite=(bad[-1] if not reverse else bad[0]) if bad else None,
    )


def _head(states: list[StateGradients]) -> str:
    """The last layer that runs forward; of attention the first block."""
    for part in ("hidden", "position", "input"):
        names = [state.name for state in states if state.part == part and not state.reverse]
        if names:
            return names[0] if part == "position" else names[-1]
    return states[0].name


def _products(call: Unrolled, samples: int) -> list[JacobianProduct]:
    """Along the first samples' trajectories, layer by layer, forward in time."""
    products = []
    for track in call.tracks:
        width = track.hidden[0].shape[1] + (track.cell[0].shape[1] if track.cell else 0)
        if track.reverse or width > 512:
            continue
        for i in range(min(samples, track.hidden[0].shape[0])):
            states = [torch.cat([h[i], track.cell[t][i]]) if track.cell else h[i] for t, h in enumerate(track.hidden)]
            step = layer_step(call.module, track, sample=i)
            products.append(jacobian_product(step, states, name=track.name if samples == 1 else f"{track.name}[{i}]"))
    return products


def _parameter_gap(
    model: nn.Module,
    inputs: Tensor,
    loss: SequenceLoss,
    stepped: dict[int, Tensor],
    forward: Callable[[Tensor], Any] | None,
) -> float:
    """The steps' summands added up against the fused kernels' backward pass, relative to the largest gradient."""
    with preserved(model, training=False), torch.enable_grad():
        require_gradients(model)
        differentiate(model, lambda: backward(_loss_of(model, inputs, loss, forward), model))
        pairs = [(p.grad, stepped[id(p)]) for p in model.parameters() if id(p) in stepped and p.grad is not None]
        scale = max((float(fused.abs().max()) for fused, _ in pairs), default=0.0)
        gap = max((float((fused - ours).abs().max()) for fused, ours in pairs), default=0.0)
    return gap / scale if scale > 0 else gap


IMAGES = 32


def is_recurrent(model: nn.Module) -> bool:
    """Whether the model contains a recurrent module of torch."""
    return any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in model.modules())


@checked
def measure_gradients_over_time(model: nn.Module, dataset: ImageDataset, *, name: str = "model") -> TimeTrace:
    """The time trace of the cross-entropy of up to 32 images of ``dataset``; see :func:`measure_time_trace`."""
    with calling(model, example(dataset), classes=dataset.classes) as network:
        data = evenly_spaced(dataset, min(IMAGES, network.largest or IMAGES))  # in one call, whose steps are kept
        labels = data.labels.to(network.device)

        def forward(images: Tensor) -> Tensor:
            if network.state is not None:
                network.state = ModelState(model)  # with the modules that run step by step
            return network(images)

        return measure_time_trace(
            model,
            to_unit_range(data.images.to(network.device)),
            lambda z: F.cross_entropy(z, labels),
            label=name,
            task=dataset.name,
            forward=forward,
        )
