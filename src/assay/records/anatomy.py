"""What a model is made of."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


class LayerAnatomy(Frozen):
    """One leaf module in forward order.

    ``flops`` counts multiply and add separately (2 a multiply–add), for one image; ``calls`` how often one forward pass
    runs it.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    calls: int = 1
    detail: str = ""


class BlockAnatomy(Frozen):
    """One residual block: ``shape`` of its body, what its skip does, and where normalisation stands."""

    name: str
    shape: Literal["basic", "bottleneck", "other"]
    skip: Literal["identity", "pad", "projection", "none"]
    downsamples: bool
    norm_placement: Literal["post-activation", "pre-activation", "unknown"]


class Anatomy(Record):
    """The layers, in forward order, with totals for one image of ``input_shape`` (C, H, W)."""

    kind: Literal["anatomy"] = "anatomy"
    model: str
    input_shape: tuple[int, ...]
    classes: int
    parameters: int
    trainable_parameters: int
    buffers: int
    flops: int
    depth: int
    layers: tuple[LayerAnatomy, ...]
    blocks: tuple[BlockAnatomy, ...] = ()
    normalizes_input: bool = False
