"""Input gradients (saliency): where and how strongly the loss depends on the pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.pictures import LARGEST_THUMBNAIL, thumbnail_base64, to_bytes
from assay.data.selection import evenly_spaced
from assay.diagnostics.batches import example
from assay.errors import ModelError
from assay.models.calls import calling, refusing
from assay.records.gradients import InputGradients, InputGradientSample
from assay.runtime import uncompiled

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PART_VALUES = 2**22  # gradients looked at together, in double precision


@checked
def measure_input_gradients(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    n: int = 256,
    shown: int = 12,
    batch_size: int = 64,
    largest: int = LARGEST_THUMBNAIL,
) -> InputGradients:
    """Norms of the input gradients ‖∂ℓ_i/∂x_i‖₂, ℓ_i the cross-entropy of sample i, and some of them as saliency maps.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); run in evaluation mode, left as it was found.
        dataset: images and labels of K classes.
        n: most samples, evenly spaced over the set.
        shown: pictures in the record: half of correct and half of wrong samples where there are enough, at equal
            distances in the ranking by norm.
        batch_size: images in one backward pass.
        largest: pixels a side of those pictures, where images have more than 128.

    Returns:
        The record: medians and quantiles of the norms (per unit of pixel value, in nats) of correct and of wrong
        samples, the share of squared gradient in the top tenth of pixels, counts of zero and of non-finite gradients,
        and the pictures.

    Raises:
        ModelError: the model cannot take the images, or its loss has no gradient with respect to them.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> gradients = assay.measure_input_gradients(model, data, shown=4)
        >>> gradients.n_right + gradients.n_wrong, gradients.zero, len(gradients.samples)
        (64, 0, 4)

    Reference:
        Simonyan, Vedaldi & Zisserman 2014, arXiv:1312.6034.
    """
    data = evenly_spaced(dataset, n)
    gradients, logits = _differentiate(model, data, batch_size=batch_size)
    norms = torch.cat([part.double().flatten(1).norm(dim=1) for part in _parts(gradients)])
    finite = norms.isfinite()
    predicted = logits.nan_to_num(nan=-torch.inf).argmax(dim=1)
    correct = (predicted == data.labels) & logits.isfinite().all(dim=1)
    confidence = logits.softmax(dim=1).amax(dim=1)

    def show(i: int) -> InputGradientSample:
        summed = gradients[i].abs().sum(dim=0, keepdim=True)  # (C, H, W) -> (1, H, W)
        peak = float(summed.max())
        return InputGradientSample(
            sample_id=data.sample_name(i),
            label=data.classes[int(data.labels[i])],
            prediction=data.classes[int(predicted[i])],
            confidence=float(confidence[i]),
            correct=bool(correct[i]),
            gradient_norm=float(norms[i]),
            image=thumbnail_base64(data.images[i], largest=largest),
            gradient_map=thumbnail_base64(to_bytes(summed / peak if peak > 0 else summed), largest=largest),
        )

    chosen = _choose(norms, correct & finite, ~correct & finite, shown=shown)
    return InputGradients(
        n_right=int(correct.sum()),
        n_wrong=int((~correct).sum()),
        median_norm_right=_median(norms[correct & finite]),
        median_norm_wrong=_median(norms[~correct & finite]),
        quantiles_right=_quantiles(norms[correct & finite]),
        quantiles_wrong=_quantiles(norms[~correct & finite]),
        concentration=_concentration(gradients[finite]),
        zero=int((norms == 0).sum()),
        non_finite=int((~finite).sum()),
        samples=tuple(show(i) for i in chosen),
    )


def _differentiate(model: nn.Module, data: ImageDataset, *, batch_size: int) -> tuple[Tensor, Tensor]:
    """∂ℓ_i/∂x_i float32 (N, C, H, W) and logits float32 (N, K), both on the CPU."""
    expected = "a model whose loss can be differentiated with respect to the image"
    gradients, outputs = [], []
    with (
        uncompiled(),
        calling(model, example(data), classes=data.classes) as network,
        torch.enable_grad(),
    ):
        for parameter in model.parameters():
            parameter.requires_grad_(False)  # without weight gradients the backward pass costs half
        size = network.rows_that_fit(data.shape, most=batch_size, gradients=True)
        for batch in data.batches(size):
            images = to_unit_range(batch.images.to(network.device)).requires_grad_(True)
            logits = network(images)
            if not logits.requires_grad:
                raise ModelError("model", expected=expected, got="an output cut off from its input")
            loss = F.cross_entropy(logits, batch.labels.to(network.device), reduction="sum")
            with refusing(model, expected=expected, where="model"):
                (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
            gradients.append((torch.zeros_like(images) if gradient is None else gradient).detach().cpu())
            outputs.append(logits.detach().float().cpu())
    return torch.cat(gradients), torch.cat(outputs)


def _choose(norms: Tensor, correct: Tensor, wrong: Tensor, *, shown: int) -> list[int]:
    """Half correct, half wrong; where one side has too few, more of the other."""
    n_wrong = min(int(wrong.sum()), max(shown // 2, shown - int(correct.sum())))
    n_correct = min(int(correct.sum()), shown - n_wrong)
    return [*_even_ranks(norms, correct, n_correct), *_even_ranks(norms, wrong, n_wrong)]


def _even_ranks(norms: Tensor, mask: Tensor, count: int) -> list[int]:
    indices = mask.nonzero()[:, 0]
    ranked = indices[norms[indices].argsort(stable=True)]
    places = torch.linspace(0, max(0, len(ranked) - 1), count).round().long()
    return [int(i) for i in ranked[places]]


def _median(norms: Tensor) -> float | None:
    return float(norms.quantile(0.5)) if len(norms) else None


def _quantiles(norms: Tensor) -> tuple[float, ...]:
    return tuple(norms.quantile(torch.tensor(QUANTILES, dtype=norms.dtype)).tolist()) if len(norms) else ()


def _parts(gradients: Tensor) -> tuple[Tensor, ...]:
    """Some at a time, so that copies in double precision take little memory."""
    return torch.split(gradients, max(1, _PART_VALUES // max(1, math.prod(gradients.shape[1:]))))


def _concentration(gradients: Tensor) -> float:
    """Mean over samples of the share of Σ g² in the top tenth of pixels, channels summed; NaN when all are zero."""
    shares = []
    for part in _parts(gradients):
        energy = part.double().square().sum(dim=1).flatten(1)  # (N, C, H, W) -> (N, H·W)
        energy = energy[energy.sum(dim=1) > 0]
        top = energy.topk(max(1, energy.shape[1] // 10), dim=1).values.sum(dim=1)
        shares.append(top / energy.sum(dim=1))
    return float(torch.cat(shares).mean())  # not a number where there is nothing
