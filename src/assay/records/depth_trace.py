"""Gradients over depth and over training steps."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


class LayerTrace(Frozen):
    """One parametric layer at the sampled steps.

    ``activation`` is the root mean square of its output, ``gradient`` ‖∂L/∂output‖₂ over the batch, ``weight_gradient``
    ‖∂L/∂θ‖₂ of its own parameters before clipping, ``update`` ‖Δθ‖₂/‖θ‖₂ of the optimizer's step. ``dead`` is the share
    of its channels that the activation after it leaves at zero for the whole batch, ``saturated`` of the entries
    beyond 0.99 of a tanh or sigmoid; both empty where no such module follows. NaN and infinities stay in place.
    """

    name: str
    type: str
    depth: int
    activation: tuple[float, ...]
    gradient: tuple[float, ...]
    weight_gradient: tuple[float, ...]
    update: tuple[float, ...]
    dead: tuple[float, ...] = ()
    saturated: tuple[float, ...] = ()


class DepthTrace(Record):
    """What the hooks saw at ``steps`` (counted from 1) of ``total`` training steps.

    ``first_non_finite`` names the first layer, at the first sampled step, whose numbers are not finite;
    ``non_finite`` counts such numbers. ``overhead`` is the median time of a sampled step over that of the others, less
    one, and ``average_overhead`` that spread over all steps; None with fewer than three steps of either kind.
    """

    kind: Literal["depth_trace"] = "depth_trace"
    label: str
    total: int
    steps: tuple[int, ...]
    layers: tuple[LayerTrace, ...]
    non_finite: int = 0
    first_non_finite: str | None = None
    overhead: float | None = None
    average_overhead: float | None = None
