"""One gradient: a batch in micro-batches through the network, losses summed, gradients accumulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from assay.runtime import generator

Lesson = Callable[[nn.Module], tuple[Tensor, Tensor]]
"""One micro-batch: the sum of the model's losses on it, and how many samples were right (0-dimensional tensors)."""

Around = Callable[[nn.Module], AbstractContextManager[object]]
"""What the forward and backward pass of every micro-batch runs inside of: a regulariser, a watch."""

RANDOM_STREAM = 0x5E9


def nothing_around(model: nn.Module) -> AbstractContextManager[object]:
    """The plain step."""
    return nullcontext()


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What convolutions and products are computed in, where it is not the weights' own."""
    return torch.bfloat16 if precision == "bfloat16" else None


def accumulate_gradient(
    model: nn.Module,
    lessons: Sequence[tuple[int, Lesson]],
    *,
    batch_size: int,
    key: Sequence[int],
    around: Around = nothing_around,
) -> tuple[Tensor, Tensor]:
    """Add ∇ (1/B) Σ losses over this process's ``lessons`` to every ``.grad``; B is the global batch size.

    Each lesson comes with its number in the global batch. All that is random in it (dropout, mixing, random
    starts) is drawn from torch's global generator seeded by ``key`` and that number, so the outcome depends neither
    on the number of processes nor on what ran before. Returns the sums of losses and of right answers.
    """
    device = next(model.parameters()).device
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for number, lesson in lessons:
        torch.manual_seed(generator(*key, RANDOM_STREAM, number).initial_seed())
        with around(model):
            losses, hits = lesson(model)
            (losses / batch_size).backward()  # type: ignore[no-untyped-call]
        loss_sum += losses.detach()
        correct += hits
    return loss_sum, correct
