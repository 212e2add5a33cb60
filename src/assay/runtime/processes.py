"""Data parallelism: processes started by torchrun that train one model with one all-reduce a step; interrupts.

Every process holds the whole model and the whole order of samples. Of each global batch it takes its share of the
micro-batches; gradients are summed once a step. So samples, order, augmentation, micro-batches of normalisation layers
and the sum of the gradients are those of one process, whatever the number of processes.
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
    """This process's number and how many there are; with one process every method does nothing."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share_weights(self, model: nn.Module) -> None:
        """All processes take the parameters and buffers of the first."""
        if self.world > 1:
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, src=0)

    def sum_gradients(self, model: nn.Module) -> None:
        """Every ``.grad`` becomes the sum over the processes; a missing one counts as zero."""
        if self.world == 1:
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._sum([parameter.grad for parameter in parameters if parameter.grad is not None])

    def average_buffers(self, model: nn.Module, *, share: float | None = None) -> None:
        """Running statistics become their mean over the processes, each weighed by its ``share`` of the samples."""
        if self.world > 1:
            weight = 1 / self.world if share is None else share
            self._sum([buffer for buffer in model.buffers() if buffer.is_floating_point()], weight=weight)

    @staticmethod
    @torch.no_grad()
    def _sum(tensors: list[Tensor], *, weight: float = 1.0) -> None:
        """Every tensor becomes its sum over the processes, each times its own ``weight``; one message for all."""
        if not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat.mul_(weight) if weight != 1 else flat)
        pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))

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
        """The ``value`` of every process, by rank; also a barrier."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


ALONE = Processes()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started (gloo; nccl with GPUs); :data:`ALONE` without torchrun."""
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
    """``pending`` is the name of the first signal received; a second one raises at once."""

    def __init__(self) -> None:
        self.pending: str | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        if self.pending is not None:
            raise KeyboardInterrupt
        self.pending = signal.Signals(number).name


@contextmanager
def deferred_interrupts(*, enabled: bool) -> Iterator[Interrupts]:
    """Defer SIGINT and SIGTERM inside the block and report them; only the main thread can."""
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
