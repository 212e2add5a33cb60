"""Running statistics of normalisation layers measured anew: those of one pass over all images at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from assay.errors import ModelError, one_line
from assay.runtime import hooked, preserved

TOLERANCE = 1e-3  # standard deviations of a channel; the sample itself is further from the whole set
MOST_LAYERS = 8  # that follow one another, up to which the statistics are those of one batch exactly


@dataclass(eq=False)
class Moments:
    """Mean and variance of every channel over all positions of all batches, as of one batch (Chan et al. 1979).

    Batches are reduced on their device, in their precision but at least float32, and joined on the CPU in float64.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    deviations: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))  # Σ (x − mean)²

    def add(self, x: Tensor) -> None:
        """Take in ``x`` (N, C, …)."""
        values = x.detach() if x.dtype == torch.float64 else x.detach().float()
        others = tuple(dim for dim in range(x.ndim) if dim != 1)
        mean = values.mean(others, keepdim=True)
        variance = (values - mean).square_().mean(others)  # several times as fast as torch.var_mean, in any layout
        count = x.numel() // x.shape[1]
        self.join(Moments(count, mean.flatten().cpu().double(), variance.cpu().double() * count))

    def join(self, other: Moments) -> None:
        """Take in all that ``other`` has taken in."""
        total = self.count + other.count
        apart = other.mean - self.mean
        self.deviations = self.deviations + other.deviations + apart * apart * (self.count * other.count / total)
        self.mean = self.mean + apart * (other.count / total)
        self.count = total

    def variance(self, *, correction: int = 0) -> Tensor:
        """Over the number of positions less ``correction``; not a number where nothing is left to divide by."""
        return self.deviations / (self.count - correction or math.nan)


class InstanceMoments(Moments):
    """The same of instance normalisation, whose variance is the mean of those within each channel of each sample."""

    def add(self, x: Tensor) -> None:
        variance, mean = torch.var_mean(x.detach().flatten(2).float(), dim=2)
        count = len(x)
        self.join(Moments(count, mean.mean(dim=0).cpu().double(), variance.mean(dim=0).cpu().double() * count))

    def join(self, other: Moments) -> None:
        deviations = self.deviations + other.deviations
        super().join(other)
        self.deviations = deviations

    def variance(self, *, correction: int = 0) -> Tensor:
        return super().variance()


def moments_for(norm: nn.Module) -> Moments:
    """Empty ones, of the kind that this layer's running statistics are."""
    return InstanceMoments() if isinstance(norm, _InstanceNorm) else Moments()


Slot = tuple[_NormBase, int]  # a layer, and which of its calls in one forward pass


def updated_norms(model: nn.Module) -> dict[str, _NormBase]:
    """The layers with running statistics that training updates, by name.

    One that is in evaluation mode while the model is in training mode, by hand or by a ``train`` of its own, is frozen
    and left out.
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _NormBase) and m.running_mean is not None}
    free = {name: norm for name, norm in norms.items() if norm.training or not model.training}
    with preserved(model, training=True):
        return {name: norm for name, norm in free.items() if norm.training}


def measure_running_statistics(
    model: nn.Module,
    norms: Collection[_NormBase],
    images: Tensor,
    *,
    convert: Callable[[Tensor], Tensor],
    batch_size: int,
    passes: int | None = None,
) -> dict[_NormBase, Moments]:
    """What the inputs of ``norms`` have as mean and variance over all ``images``; layers that do not run are left out.

    In the first pass every batch is normalised by its own statistics, in the next by those of the pass before. After as
    many passes as layers follow one another that is exactly one forward pass of all images as one batch: networks of
    up to eight layers get so many, or fewer where nothing moves any more. Deeper ones get two: the second is nearer to
    one batch than the first, but from then on every layer adds to the error of those before it, up to thousands of
    standard deviations. A layer called several times has statistics for each call on the way, and in the end those of
    all its calls together. The model is left as it was found.

    ``passes`` asks for another number of them. ``convert`` turns a batch of ``images`` (N, C, H, W) into what the model
    takes; the sizes of batches differ by one at most. Raises :class:`ModelError` when the model fails, or a layer sees
    less than two finite values a channel.
    """
    if not norms:
        return {}
    names = {module: name or "(model)" for name, module in model.named_modules()}
    batches = torch.tensor_split(images, math.ceil(len(images) / batch_size))
    known: dict[Slot, Moments] = {}
    with preserved(model, training=False), torch.no_grad():
        known = _pass(model, norms, (convert(batch) for batch in batches), known)
        if passes is None:
            passes = 1 if len(batches) == 1 else len(known) if len(known) <= MOST_LAYERS else 2
        for _ in range(1, passes):
            former, known = known, _pass(model, norms, (convert(batch) for batch in batches), known)
            if all(_moved(former, slot, moments) <= TOLERANCE for slot, moments in known.items()):
                break
    pooled: dict[_NormBase, Moments] = {}
    for (norm, _), moments in known.items():
        pooled.setdefault(norm, moments_for(norm)).join(moments)
    for norm, moments in pooled.items():
        if not bool((moments.mean + moments.variance(correction=1)).isfinite().all()):
            expected = "inputs of at least two values a channel, all finite"
            raise ModelError(f"statistics of {names[norm]}", expected=expected, got=f"{moments.count} values a channel")
    return pooled


def write_statistics(norm: _NormBase, moments: Moments, *, correction: int = 1) -> None:
    """Give ``norm`` these statistics; they count as one update."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(moments.mean)
        norm.running_var.copy_(moments.variance(correction=correction))
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(1)


def _pass(
    model: nn.Module, norms: Collection[_NormBase], batches: Iterable[Tensor], known: dict[Slot, Moments]
) -> dict[Slot, Moments]:
    """The moments of every call of ``norms``, normalised by those ``known``; by those of the batch where none are."""
    fresh: dict[Slot, Moments] = {}
    calls: Counter[_NormBase] = Counter()

    def before(norm: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        assert isinstance(norm, _NormBase)
        slot = norm, calls[norm]
        calls[norm] += 1
        fresh.setdefault(slot, moments_for(norm)).add([*args, *named.values()][0])
        if slot in known:
            write_statistics(norm, known[slot], correction=0)  # a batch is normalised by its biased variance

    for norm in norms:
        norm.train(not known)
    with hooked(*(norm.register_forward_pre_hook(before, with_kwargs=True) for norm in norms)):
        for batch in batches:
            calls.clear()
            try:
                model(batch)
            except Exception as error:
                expected = f"a model that takes images {tuple(batch.shape)} while its normalisation layers train"
                raise ModelError(
                    "model(images)", expected=expected, got=f"{type(error).__name__}: {one_line(error)}"
                ) from error
    return fresh


def _moved(former: dict[Slot, Moments], slot: Slot, moments: Moments) -> float:
    """The largest change of a mean or a variance over the channels, in units of the standard deviation or variance."""
    if slot not in former:
        return math.inf
    variance, eps = former[slot].variance(), slot[0].eps
    shift = (moments.mean - former[slot].mean) / (variance + eps).sqrt()
    growth = (moments.variance() - variance) / (variance + eps)
    return float(torch.maximum(shift.abs(), growth.abs()).max())
