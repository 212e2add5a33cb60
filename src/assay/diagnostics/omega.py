"""The regulariser of Pascanu, Mikolov & Bengio (2013) that keeps ‖∂L/∂z_t‖ alike from step to step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from assay.diagnostics.unroll import Unrolled, unrolled
from assay.errors import ModelError


def omega(call: Unrolled) -> Tensor:
    """Ω = mean_t (‖δ_{t+1} J_{t+1}‖ / ‖δ_{t+1}‖ − 1)², J_{t+1} = diag(φ'(a_{t+1})) W_hh, over samples and layers.

    δ_t = ∂L/∂z_t and the states count as constants, so only the immediate derivative with respect to W_hh remains, as
    in the paper (eqs. 9 and 10; a mean in place of its sum). Call after ``loss.backward()`` inside
    :func:`~assay.diagnostics.unroll.unrolled`, and call ``.backward()`` on the result.
    Raises :class:`ModelError` for anything but ``nn.RNN``.
    """
    if not isinstance(call.module, nn.RNN):
        raise ModelError(call.name, expected="nn.RNN, for which Ω is defined", got=type(call.module).__name__)
    terms = []
    for track in call.tracks:
        W = getattr(call.module, f"weight_hh_l{track.layer}{'_reverse' if track.reverse else ''}")
        states = torch.stack([h.detach() for h in track.hidden])  # (T, B, H)
        deltas = torch.stack([torch.zeros_like(h) if h.grad is None else h.grad for h in track.hidden])
        slopes = (states > 0).to(states) if call.module.nonlinearity == "relu" else 1 - states.square()
        before = deltas.norm(dim=2)
        after = ((deltas * slopes) @ W).norm(dim=2)
        alive = before > 1e-30
        ratio = torch.where(alive, after / before.clamp_min(1e-30), 1.0)
        terms.append((ratio - 1).square().mean())
    return torch.stack(terms).mean()


def regularised(strength: float) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """(model) -> context manager: a forward and backward pass inside of it gets the gradient of ``strength``·Ω added.

    What :func:`~assay.training.loop.fit` takes as ``around``. Raises :class:`ModelError` as :func:`omega` does.
    """

    @contextmanager
    def around(model: nn.Module) -> Iterator[None]:
        with unrolled(model) as calls:
            yield
        for call in calls:
            (strength * omega(call)).backward()  # type: ignore[no-untyped-call]

    return around
