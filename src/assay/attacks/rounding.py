"""A copy of a network that multiplies in bfloat16, about twice as fast where the processor knows how.

It only searches. Whatever it finds is judged by the untouched model in float32, and so is every image whose margin it
puts within :attr:`Rounded.resolution` of the boundary, where it cannot tell right from wrong.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.attacks.surrogate import CONVOLUTIONS
from assay.errors import OptionError
from assay.records.attack import Precision
from assay.runtime import has_fast_bfloat16

SMALLEST = 100_000  # parameters: below, the passes cost less than the Python around them
TOLERANCE = 0.02  # of the range of the logits: what bfloat16 may do to them before it is not to be used


@dataclass(frozen=True, eq=False)
class Rounded:
    """``model`` answers under autocast; margins that differ by less than ``resolution`` are equal to it."""

    model: nn.Module
    resolution: float

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            logits: Tensor = self.model(images)
        return logits


class _FullLinear(nn.Linear):
    """The last layer, in float32: a logit of 10 has no neighbour in bfloat16 nearer than 0.06."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def round_to_bfloat16(model: nn.Module, example: Tensor, *, precision: Precision | str, classes: int) -> Rounded | None:
    """``model`` in bfloat16 if ``precision`` asks for it; None where float32 is to do.

    ``auto`` takes bfloat16 for a convolutional float32 network of at least :data:`SMALLEST` parameters on a device that
    multiplies it in hardware, provided that the logits on ``example`` (B, C, H, W) move by at most :data:`TOLERANCE` of
    their range. Raises :class:`OptionError` for an unknown precision, or one that the network cannot answer in.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise OptionError("precision", expected="auto, float32 or bfloat16", got=repr(precision))
    if precision == "float32" or (precision == "auto" and not _gains(model, example)):
        return None
    try:
        rounded = _measure(_convert(model, example, classes=classes), model, example)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        if precision == "auto":
            return None
        raise OptionError("precision", expected="float32 for this model", got=f"bfloat16: {error}") from None
    return rounded if precision == "bfloat16" or rounded.resolution <= TOLERANCE * _range(model, example) else None


def _gains(model: nn.Module, example: Tensor) -> bool:
    convolves = any(isinstance(module, CONVOLUTIONS) for module in model.modules())
    large = sum(parameter.numel() for parameter in model.parameters()) >= SMALLEST
    return convolves and large and example.dtype == torch.float32 and has_fast_bfloat16(example.device)


def _convert(model: nn.Module, example: Tensor, *, classes: int) -> nn.Module:
    """Weights of convolutions and products rounded once, not at every pass; the layer of the logits left alone."""
    converted = copy.deepcopy(model)
    called: list[nn.Linear] = []
    layers = [module for module in converted.modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))]
    linear = [layer for layer in layers if type(layer) is nn.Linear and layer.out_features == classes]
    handles = [layer.register_forward_hook(lambda module, *_: called.append(module)) for layer in linear]
    try:
        with torch.no_grad():
            converted(example)
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if called and layer is called[-1]:
            layer.__class__ = _FullLinear
        elif not hasattr(layer, "parametrizations"):
            layer.to(torch.bfloat16)
    return converted


def _measure(converted: nn.Module, model: nn.Module, example: Tensor) -> Rounded:
    """The largest change of a difference of two logits of one image, on ``example``."""
    rounded = Rounded(converted, 0.0)
    with torch.no_grad():
        moved = rounded(example).double() - model(example).double()
    if not bool(moved.isfinite().all()):
        raise ValueError("its logits are not finite")
    return Rounded(converted, float((moved.amax(dim=1) - moved.amin(dim=1)).max()))


def _range(model: nn.Module, example: Tensor) -> float:
    with torch.no_grad():
        logits = model(example)
    return float(logits.max() - logits.min())
