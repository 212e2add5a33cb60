"""How a micro-batch of labelled images becomes a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import Batch, to_unit_range
from assay.runtime import device_of, dtype_of

# (model, images in [0, 1], labels, or distributions over the classes where samples are mixed) -> images in [0, 1]
Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]
Prepare = Callable[[Batch], Tensor]  # bytes of one micro-batch to augmented bytes
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (images, one-hot targets) -> the same, mixed
KeepLosses = Callable[[Tensor], None]  # takes the losses (B,) of a micro-batch, one a sample
TrainingLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (images, logits, targets) -> sum of the samples' losses


@dataclass(frozen=True)
class Objective:
    """How a micro-batch becomes a loss: cross-entropy with ``label_smoothing`` on perturbed and mixed images.

    ``autocast`` is the precision of convolutions and products, in the network, in ``perturb`` and in ``loss``, which
    takes the place of cross-entropy where it is given.
    """

    classes: int
    label_smoothing: float = 0.0
    perturb: Perturb | None = None
    mix: Mix | None = None
    autocast: torch.dtype | None = None
    loss: TrainingLoss | None = None

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, keep_losses: KeepLosses | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses over the micro-batch, and the number of correct samples (0-dimensional tensors).

        ``keep_losses`` gets the cross-entropy of every sample.
        """
        targets = labels
        if self.mix is not None:
            images, targets = self.mix(images, F.one_hot(labels, self.classes).to(images.dtype))
        with torch.autocast(images.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            if self.perturb is not None:
                images = self.perturb(model, images, targets)
            logits = model(images)
            if self.loss is not None:
                losses = self.loss(images, logits.float(), targets)
        if self.loss is None:
            cross_entropy = partial(F.cross_entropy, logits.float(), targets, label_smoothing=self.label_smoothing)
            losses = cross_entropy(reduction="sum")
            if keep_losses is not None:
                with torch.no_grad():
                    keep_losses(cross_entropy(reduction="none"))
        correct = logits.detach().argmax(dim=1) == (targets if targets.ndim == 1 else targets.argmax(dim=1))
        return losses, correct.sum()


def image_losses(
    model: nn.Module,
    batch: Batch,
    *,
    objective: Objective,
    prepare: Prepare,
    layout: torch.memory_format,
    keep_losses: KeepLosses | None = None,
) -> tuple[Tensor, Tensor]:
    """Prepare the bytes of one micro-batch, then the ``objective``: the sum of the losses, and the correct samples."""
    device, dtype = device_of(model), dtype_of(model)
    images = to_unit_range(prepare(batch).to(device), dtype).contiguous(memory_format=layout)
    return objective(model, images, batch.labels.to(device), keep_losses=keep_losses)


@dataclass(frozen=True, eq=False)
class Distillation:
    """Σ over the batch of T²·KL(softmax(t/T) ‖ softmax(z/T)), t the ``teacher``'s logits on the same images.

    The teacher runs in the mode it is in and gets no gradients: put it into evaluation mode first. It is evaluated on
    the images as augmented and mixed.
    Reference: Hinton, Vinyals & Dean, *Distilling the knowledge in a neural network* (2015); on the same images for
    both, Beyer et al., *Knowledge distillation: a good teacher is patient and consistent*, CVPR 2022.
    """

    teacher: nn.Module
    temperature: float = 4.0

    def __call__(self, images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Images (B, C, H, W) and logits (B, K); ``targets`` are not used."""
        with torch.no_grad():
            teacher_logits = self.teacher(images).float()
        t = self.temperature
        divergence = F.kl_div(
            F.log_softmax(logits / t, dim=1), F.log_softmax(teacher_logits / t, dim=1), reduction="sum", log_target=True
        )
        return divergence * t * t
