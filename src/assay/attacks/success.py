"""What an attack is after: any class but the label, or one class in particular."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.attacks.lanes import Samples
from assay.attacks.losses import margin, target_lead


def predictions(logits: Tensor) -> Tensor:
    """int64 (B,): the class of the largest logit; −1 where a logit is not finite, which is never right."""
    return torch.where(logits.isfinite().all(dim=1), logits.argmax(dim=1), -1)


def succeeds(logits: Tensor, samples: Samples) -> Tensor:
    """bool (B,): the goal is predicted or, for samples without one, anything but the label."""
    predicted = predictions(logits)
    return torch.where(samples.goal >= 0, predicted == samples.goal, predicted != samples.labels)


def nearness(logits: Tensor, samples: Samples) -> Tensor:
    """How much a sample succeeds by, (B,): positive exactly where it does, for finite logits."""
    untargeted = margin(logits, samples.labels, samples.labels)
    if not bool((samples.goal >= 0).any()):
        return untargeted
    led = target_lead(logits, samples.labels, samples.goal.clamp_min(0))
    return torch.where(samples.goal >= 0, led, untargeted)
