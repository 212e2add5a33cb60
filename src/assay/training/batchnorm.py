"""Re-estimating the running statistics of batch normalisation after training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from assay.data.dataset import Batch, ImageDataset, to_unit_range
from assay.runtime import device_of, dtype_of, preserved


def refresh_batchnorm(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    samples: int = 5000,
    batch_size: int = 250,
    transform: Callable[[Batch], torch.Tensor] | None = None,
) -> int:
    """Replace the running means and variances by plain averages over the first ``samples`` of ``dataset``.

    Running statistics lag behind weights that still move, or were averaged; this makes them exact for the weights as
    they are. Everything else of the model is left as found. Returns how many layers were refreshed.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return 0
    chosen = dataset.subset(torch.arange(min(samples, len(dataset))))
    fresh: dict[str, torch.Tensor] = {}
    with preserved(model, training=False), torch.no_grad():
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's way to say: a plain average
            norm.train()
        for batch in chosen.batches(batch_size):
            images = batch.images if transform is None else transform(batch)
            model(to_unit_range(images.to(device_of(model)), dtype_of(model)))
        fresh = {name: tensor.clone() for name, tensor in model.named_buffers()}
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(fresh[name])
    return len(norms)
