"""How long a forward pass really takes: interleaved, so that a busy machine slows all candidates alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Latency:
    """Fastest, median and quartiles, in seconds, of one forward pass.

    The fastest says what the work takes; the rest says what else the machine was doing.
    """

    fastest: float
    median: float
    low: float
    high: float


def measure_latencies(
    modules: Sequence[nn.Module], inputs: Tensor, *, repeats: int = 15, budget: float = 2.0
) -> tuple[Latency, ...]:
    """One forward pass of each module on the same ``inputs``, in turn, ``repeats`` times or until ``budget`` seconds.

    The first round warms up and does not count. Modules are used as they are: put them into evaluation mode first.
    """
    device = inputs.device
    times: list[list[float]] = [[] for _ in modules]
    end = time.perf_counter() + budget
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for module, found in zip(modules, times, strict=True):
                started = time.perf_counter()
                module(inputs)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:
                    found.append(time.perf_counter() - started)
            if turn >= 3 and time.perf_counter() > end:
                break
    return tuple(_summary(sorted(found)) for found in times)


def _summary(found: list[float]) -> Latency:
    n = len(found)
    return Latency(found[0], found[n // 2], found[n // 4], found[(3 * n) // 4])
