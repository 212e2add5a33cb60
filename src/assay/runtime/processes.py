"""Several processes training one model: started by torchrun, held together by one all-reduce a step.

Every process holds the whole model and the whole order of samples. Of each global batch it takes its share of the
micro-batches; gradients are summed once a step. So the samples, their order, their augmentation and the sum of their
gradients are those of one process, whatever the number of processes. Where a normalisation layer sees micro-batches,
it sees the same ones.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process's number and how many there are; every method is free where there is only one."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Is this the process that writes files and talks?"""
        return self.rank == 0

    def share_weights(self, model: nn.Module) -> None:
        """Everyone starts from the first process's parameters and buffers."""
        if self.world > 1:
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, src=0)

    def sum_gradients(self, model: nn.Module) -> None:
        """Every ``.grad`` becomes the sum over the processes, in one message; a missing one counts as zero."""
        if self.world == 1:
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))

    def average_buffers(self, model: nn.Module) -> None:
        """Running statistics become their mean over the processes."""
        if self.world == 1:
            return
        floating = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if floating:
            flat = torch.cat([buffer.flatten() for buffer in floating])
            dist.all_reduce(flat)
            pieces = flat.div_(self.world).split([buffer.numel() for buffer in floating])  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for buffer, piece in zip(floating, pieces, strict=True):
                    buffer.copy_(piece.view(buffer.shape))

    def sum_numbers(self, *numbers: Tensor | float) -> tuple[float, ...]:
        """The sums over the processes of a few numbers."""
        tensor = torch.stack([torch.as_tensor(number, dtype=torch.float64, device="cpu") for number in numbers])
        if self.world > 1:
            tensor = tensor.to(_message_device())
            dist.all_reduce(tensor)
        return tuple(tensor.tolist())

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum over the processes of a tensor of one shape, on the CPU; ``tensor`` itself stays as it is."""
        if self.world == 1:
            return tensor.cpu()
        total = tensor.to(_message_device(), copy=True)
        dist.all_reduce(total)
        return total.cpu()

    def gather(self, value: T) -> list[T]:
        """Everybody's ``value``, by rank; nobody goes on before all have come here."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


ALONE = Processes()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started (gloo, or nccl where each has its GPU); alone without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def _message_device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


class Interrupts:
    """``pending`` becomes the name of the first signal that came; a second one is not held back."""

    def __init__(self) -> None:
        self.pending: str | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        """Remember the signal; at the second one give up waiting for the step to end."""
        if self.pending is not None:
            raise KeyboardInterrupt
        self.pending = signal.Signals(number).name


@contextmanager
def deferred_interrupts(*, enabled: bool) -> Iterator[Interrupts]:
    """Hold SIGINT and SIGTERM back inside the block and tell of them; outside the main thread they cannot be held."""
    interrupts = Interrupts()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    former = {number: signal.signal(number, interrupts.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
