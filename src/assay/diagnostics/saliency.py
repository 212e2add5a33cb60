"""What the loss is sensitive to in the input, on images the model gets right and on those it gets wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset
from assay.data.pictures import png_base64, to_bytes
from assay.data.selection import evenly_spaced
from assay.diagnostics.batches import inputs
from assay.errors import ModelError
from assay.evaluate import call, check_logits
from assay.records.gradients import InputGradients, InputGradientSample
from assay.runtime import preserved

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class _Gradients:
    """``gradients`` float32 (N, C, H, W), ``logits`` float32 (N, K), both on the CPU."""

    gradients: Tensor
    logits: Tensor


def measure_input_gradients(
    model: nn.Module, dataset: ImageDataset, *, n: int = 256, shown: int = 12, batch_size: int = 64
) -> InputGradients:
    """‖∂ℓ_i/∂x_i‖₂ of each sample's cross-entropy, in evaluation mode, and ``shown`` of the maps as pictures.

    The samples (at most ``n``) are spread evenly over the set; half of those shown are right and half wrong where
    there are enough, taken at even ranks of their norm, so that they stand for the rest. The model is left as found.
    Raises :class:`ModelError` when the model cannot take the images or its loss has no gradient with respect to them.
    """
    data = evenly_spaced(dataset, n)
    found = _differentiate(model, data, batch_size=batch_size)
    norms = found.gradients.double().flatten(1).norm(dim=1)
    finite = norms.isfinite()
    predicted = found.logits.nan_to_num(nan=-torch.inf).argmax(dim=1)
    right = (predicted == data.labels) & found.logits.isfinite().all(dim=1)
    confidence = found.logits.softmax(dim=1).amax(dim=1)
    maps = found.gradients.abs().sum(dim=1, keepdim=True)  # (N, C, H, W) -> (N, 1, H, W)

    def show(i: int) -> InputGradientSample:
        peak = float(maps[i].max())
        return InputGradientSample(
            sample_id=data.sample_name(i),
            label=data.classes[int(data.labels[i])],
            prediction=data.classes[int(predicted[i])],
            confidence=float(confidence[i]),
            correct=bool(right[i]),
            gradient_norm=float(norms[i]),
            image=png_base64(data.images[i]),
            gradient_map=png_base64(to_bytes(maps[i] / peak if peak > 0 else maps[i])),
        )

    chosen = _choose(norms, right & finite, ~right & finite, shown=shown)
    return InputGradients(
        n_right=int(right.sum()),
        n_wrong=int((~right).sum()),
        median_norm_right=_median(norms[right & finite]),
        median_norm_wrong=_median(norms[~right & finite]),
        quantiles_right=_quantiles(norms[right & finite]),
        quantiles_wrong=_quantiles(norms[~right & finite]),
        concentration=_concentration(found.gradients[finite]),
        zero=int((norms == 0).sum()),
        non_finite=int((~finite).sum()),
        samples=tuple(show(i) for i in chosen),
    )


def _differentiate(model: nn.Module, data: ImageDataset, *, batch_size: int) -> _Gradients:
    expected = "a model whose loss can be differentiated with respect to the image"
    gradients, outputs = [], []
    with preserved(model, training=False), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        for parameter in model.parameters():
            parameter.requires_grad_(False)  # only the image's gradient is asked for: half the backward pass
        for images, labels in inputs(model, data, batch_size=batch_size):
            images.requires_grad_(True)
            logits = call(model, images)
            check_logits(logits, n=len(images), classes=len(data.classes))
            if not logits.requires_grad:
                raise ModelError("model", expected=expected, got="an output cut off from its input")
            loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            try:
                (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
            except (RuntimeError, NotImplementedError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ModelError("model", expected=expected, got=f"{type(error).__name__}: {reason}") from error
            gradients.append((torch.zeros_like(images) if gradient is None else gradient).detach().float().cpu())
            outputs.append(logits.detach().float().cpu())
    return _Gradients(torch.cat(gradients), torch.cat(outputs))


def _choose(norms: Tensor, right: Tensor, wrong: Tensor, *, shown: int) -> list[int]:
    """Half right, half wrong; what one side lacks the other gives."""
    n_wrong = min(int(wrong.sum()), max(shown // 2, shown - int(right.sum())))
    n_right = min(int(right.sum()), shown - n_wrong)
    return [*_even_ranks(norms, right, n_right), *_even_ranks(norms, wrong, n_wrong)]


def _even_ranks(norms: Tensor, mask: Tensor, count: int) -> list[int]:
    indices = mask.nonzero()[:, 0]
    ranked = indices[norms[indices].argsort(stable=True)]
    places = torch.linspace(0, max(0, len(ranked) - 1), count).round().long()
    return [int(i) for i in ranked[places]]


def _median(norms: Tensor) -> float | None:
    return float(norms.quantile(0.5)) if len(norms) else None


def _quantiles(norms: Tensor) -> tuple[float, ...]:
    return tuple(norms.quantile(torch.tensor(QUANTILES, dtype=norms.dtype)).tolist()) if len(norms) else ()


def _concentration(gradients: Tensor) -> float:
    """Mean over samples of the share of Σ g² in the top tenth of pixels, channels summed; NaN when all are zero."""
    energy = gradients.double().square().sum(dim=1).flatten(1)  # (N, C, H, W) -> (N, H·W)
    energy = energy[energy.sum(dim=1) > 0]
    if len(energy) == 0:
        return float("nan")
    top = energy.topk(max(1, energy.shape[1] // 10), dim=1).values.sum(dim=1)
    return float((top / energy.sum(dim=1)).mean())
