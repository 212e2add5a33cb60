"""A faster copy of a model with the same outputs: BatchNorm folded into the layer before it, weights in bfloat16.

In evaluation mode BatchNorm is the affine map y ↦ γ(y − μ)/√(σ² + ε) + β, and an affine map after a linear layer is one
linear layer: W ← W·s, b ← (b − μ)·s + β with s = γ/√(σ² + ε). The copy is used for the search, and only after it has
been compared with the original, which verifies every success.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import OptionError, one_line
from assay.models.calls import copied
from assay.models.outputs import Single, read_outputs
from assay.records.attack import Precision
from assay.runtime import has_fast_bfloat16, to_double

TOLERANCE = 1e-4  # of the range of the logits; float32 rounding alone is about 1.5e-5
COMPARED_VALUES = 2**18  # pixel values on which a copy is compared: a wrong one is wrong on nearly every image

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LINEAR = (*CONVOLUTIONS, nn.Linear)


def fold_batch_norm(
    model: nn.Module, example: Tensor, *, observed: int = 2, tolerance: float = TOLERANCE
) -> tuple[nn.Module, int]:
    """A copy with every foldable BatchNorm folded, and how many were; ``(model, 0)`` where that is not possible.

    ``model`` must be in evaluation mode. Which layer feeds which is seen on the first ``observed`` of ``example``
    (B, C, H, W), so any Python in ``forward`` is fine. The copy is kept only if its logits differ by at most
    ``tolerance`` of their range and every prediction is equal on ``example``, of large images on the first of it.
    """
    if not any(isinstance(module, _NORMS) for module in model.modules()):
        return model, 0
    # What cannot be copied, or reads the BatchNorm that was removed, is searched as it is, only slower.
    with suppress(Exception):
        folded = copied(model)
        example = example[: max(observed, COMPARED_VALUES // example[0].numel())]
        pairs = _adjacent(folded, example[:observed])
        for layer, norm in pairs:
            _fold(layer, norm)
            _replace(folded, norm)
        if pairs and agrees(folded, model, example, tolerance=tolerance):
            return folded, len(pairs)
    return model, 0


def agrees(copy: nn.Module, model: nn.Module, example: Tensor, *, tolerance: float = TOLERANCE) -> bool:
    """Whether the logits agree within ``tolerance`` of their range, with equal predictions."""
    with torch.no_grad():
        logits, expected = (to_double(_logits(network, example)) for network in (copy, model))
    spread = float(expected.max() - expected.min())
    close = float((logits - expected).abs().max()) <= tolerance * max(spread, torch.finfo(torch.float32).tiny)
    return close and bool(torch.equal(logits.argmax(dim=1), expected.argmax(dim=1)))


def _logits(network: Callable[[Tensor], object], example: Tensor) -> Tensor:
    return read_outputs(network(example.clone()), n=len(example)).logits


def _adjacent(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """(layer, norm) pairs in which the norm reads the very tensor that the layer wrote, each called once."""
    written: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensors, so that no id is used twice
    pairs: list[tuple[nn.Module, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, _LINEAR):
            written[id(output)] = (module, output)
        elif inputs and id(inputs[0]) in written:
            pairs.append((written[id(inputs[0])][0], module))

    _observe(model, [module for module in model.modules() if isinstance(module, (*_LINEAR, *_NORMS))], note, example)
    plain = [pair for pair in pairs if all(calls[module] == 1 and _is_plain(module) for module in pair)]
    # Only running statistics can be folded.
    return [pair for pair in plain if not pair[1].training and getattr(pair[1], "running_mean", None) is not None]


def _observe(model: nn.Module, layers: Sequence[nn.Module], hook: Callable[..., None], example: Tensor) -> None:
    """Pass ``example`` through the model with a forward hook on some of its layers."""
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with torch.no_grad():
            model(example.clone())
    finally:
        for handle in handles:
            handle.remove()


def _is_plain(module: nn.Module) -> bool:
    """No parametrization and no hook that could recompute or observe the weight."""
    return not (hasattr(module, "parametrizations") or module._forward_pre_hooks or module._forward_hooks)


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    weight, bias, mean, variance = layer.weight, layer.bias, norm.running_mean, norm.running_var
    assert isinstance(weight, Tensor) and isinstance(mean, Tensor) and isinstance(variance, Tensor)
    scale = (to_double(variance) + float(norm.eps)).rsqrt()  # type: ignore[arg-type]
    if isinstance(norm.weight, Tensor):
        scale = scale * to_double(norm.weight.detach())
    zero = torch.zeros_like(scale)
    before, shift = (to_double(b.detach()) if isinstance(b, Tensor) else zero for b in (bias, norm.bias))
    rows = scale.reshape(-1, *[1] * (weight.ndim - 1))
    layer.weight = nn.Parameter((to_double(weight.detach()) * rows).to(weight), requires_grad=False)
    layer.bias = nn.Parameter(((before - to_double(mean)) * scale + shift).to(weight), requires_grad=False)


def _replace(model: nn.Module, norm: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is norm:
                setattr(parent, name, nn.Identity())


MIN_PARAMETERS = 100_000  # below, the passes cost less than the Python around them
BFLOAT16_TOLERANCE = 0.02  # of the range of the logits: the largest error at which bfloat16 is used


@dataclass(frozen=True, eq=False)
class Bf16Surrogate:
    """``model`` under autocast; it cannot tell margins apart that differ by less than ``resolution``."""

    model: nn.Module
    resolution: float

    def __call__(self, images: Tensor) -> Any:
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            return self.model(images)


class _FullLinear(nn.Linear):
    """The last layer in float32: near 10, bfloat16 numbers are 0.06 apart."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def make_bf16_surrogate(
    model: nn.Module, example: Tensor, *, precision: Precision | str, classes: int, single: Single | None = None
) -> Bf16Surrogate | None:
    """``model`` in bfloat16 if ``precision`` asks for it; None for a search in float32.

    ``auto`` takes bfloat16 for a convolutional float32 network of at least :data:`MIN_PARAMETERS` parameters on a
    device that multiplies it in hardware, provided that the logits on ``example`` (B, C, H, W) move by at most
    :data:`BFLOAT16_TOLERANCE` of their range. Raises :class:`OptionError` for an unknown precision, or one that the
    network cannot run in. ``single`` is what the one output of a model of two classes is.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise OptionError("precision", expected="auto, float32 or bfloat16", got=repr(precision))
    if precision == "float32" or (precision == "auto" and not _pays_off(model, example)):
        return None
    if single not in {None, "logit"}:  # differences of two columns that were made of it are not those measured here
        if precision == "auto":
            return None
        raise OptionError("precision", expected="float32 for this model", got=f"bfloat16, and a {single} as output")
    try:
        surrogate = _measure(_convert(model, example, classes=1 if single else classes), model, example)
    except Exception as error:
        if precision == "auto":
            return None
        raise OptionError("precision", expected="float32 for this model", got=f"bfloat16: {one_line(error)}") from None
    if precision == "bfloat16":
        return surrogate
    with torch.no_grad():
        logits = _logits(model, example)
    return surrogate if surrogate.resolution <= BFLOAT16_TOLERANCE * float(logits.max() - logits.min()) else None


def _pays_off(model: nn.Module, example: Tensor) -> bool:
    convolves = any(isinstance(module, CONVOLUTIONS) for module in model.modules())
    large = sum(parameter.numel() for parameter in model.parameters()) >= MIN_PARAMETERS
    return convolves and large and example.dtype == torch.float32 and has_fast_bfloat16(example.device)


def _convert(model: nn.Module, example: Tensor, *, classes: int) -> nn.Module:
    """Weights of convolutions and products rounded once, not at every pass; the layer of the logits left alone."""
    converted = copied(model)
    called: list[nn.Linear] = []
    layers = [module for module in converted.modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))]
    linear = [layer for layer in layers if type(layer) is nn.Linear and layer.out_features == classes]
    _observe(converted, linear, lambda layer, *_: called.append(layer), example)
    for layer in layers:
        if called and layer is called[-1]:
            layer.__class__ = _FullLinear
        elif not hasattr(layer, "parametrizations"):
            layer.to(torch.bfloat16)
    return converted


def _measure(converted: nn.Module, model: nn.Module, example: Tensor) -> Bf16Surrogate:
    """The largest change of a difference of two logits of one image, on ``example``."""
    with torch.no_grad():
        fast, exact = (_logits(network, example) for network in (Bf16Surrogate(converted, 0.0), model))
        errors = to_double(fast) - to_double(exact)
    if not bool(errors.isfinite().all()):
        raise ValueError("its logits are not finite")
    return Bf16Surrogate(converted, float((errors.amax(dim=1) - errors.amin(dim=1)).max()))
