"""Learning from another network instead of from labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Distillation:
    """Σ over the batch of T²·KL(softmax(t/T) ‖ softmax(z/T)), t the ``teacher``'s logits on the same pictures.

    The teacher runs in the mode it is in and gets no gradients: put it into evaluation mode first. It is asked about
    the pictures as augmented and mixed, so that it says more than their labels do.
    Reference: Hinton, Vinyals & Dean, *Distilling the knowledge in a neural network* (2015); on the same pictures for
    both, Beyer et al., *Knowledge distillation: a good teacher is patient and consistent*, CVPR 2022.
    """

    teacher: nn.Module
    temperature: float = 4.0

    def __call__(self, images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """images (B, C, H, W), logits (B, K); ``targets`` are not looked at."""
        with torch.no_grad():
            wanted = self.teacher(images).float()
        t = self.temperature
        divergence = F.kl_div(
            F.log_softmax(logits / t, dim=1), F.log_softmax(wanted / t, dim=1), reduction="sum", log_target=True
        )
        return divergence * t * t
