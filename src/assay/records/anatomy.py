"""What a model is made of."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


class LayerAnatomy(Frozen):
    """One module in forward order: a layer, or a module that computes something in its own ``forward``.

    ``output_shape`` is for one image. ``parameters`` are those not counted in an earlier row; ``flops`` counts multiply
    and add separately (2 a multiply–add), for one image and all ``calls`` of one forward pass; ``calls`` is 0 for a
    module that holds parameters and never ran. ``detail`` is for people: kernel, stride, operations.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    calls: int = 1
    detail: str = ""


class BlockAnatomy(Frozen):
    """One residual block, or one block of the kind whose skip is left out.

    ``shape`` of the body: ``basic`` two spatial convolutions; ``bottleneck`` 1×1, spatial, 1×1, no wider in the middle
    than at its end; ``inverted`` the same but wider in the middle. ``skip``: ``pad`` changes the shape without
    parameters, ``projection`` by one weight layer. ``norm_placement``: ``post-activation`` a convolution first and an
    activation after the addition; ``pre-activation`` norm and activation before the first weights; ``pre-norm`` a norm
    alone before them; ``post-norm`` a norm after the addition; ``none`` no norm in the block.
    """

    name: str
    shape: Literal["basic", "bottleneck", "inverted", "other"]
    skip: Literal["identity", "pad", "projection", "none"]
    downsamples: bool
    norm_placement: Literal["post-activation", "pre-activation", "pre-norm", "post-norm", "none", "unknown"]


class Anatomy(Record):
    """The layers, in forward order, with totals for one image of ``input_shape`` (C, H, W).

    The rows' parameters and flops add up to the totals. ``multiply_adds`` are those of convolutions, linear layers,
    matrix products and attention, as most papers state them; None in documents of earlier versions. ``parameters`` and
    ``buffers`` count numbers, shared ones once. ``depth`` is the number of weight layers on the longest way from the
    image to the logits (a recurrence counts once a step); ``classes`` the width of the output. ``normalizes_input``:
    the first weights see something other than pixels.
    """

    kind: Literal["anatomy"] = "anatomy"
    model: str
    input_shape: tuple[int, ...]
    classes: int
    parameters: int
    trainable_parameters: int
    buffers: int
    flops: int
    multiply_adds: int | None = None
    depth: int
    layers: tuple[LayerAnatomy, ...]
    blocks: tuple[BlockAnatomy, ...] = ()
    normalizes_input: bool = False
