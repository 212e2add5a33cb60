"""How long one call takes, of several callables in turn on the same inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Latency:
    """Fastest, median and quartiles, in seconds, of one forward pass; the fastest is the least disturbed."""

    fastest: float
    median: float
    low: float
    high: float


def measure_latencies(
    modules: Sequence[Callable[[Tensor], Tensor]], inputs: Tensor, *, repeats: int = 15, budget: float = 2.0
) -> tuple[Latency, ...]:
    """One forward pass of each module on the same ``inputs``, in turn, ``repeats`` times or until ``budget`` seconds.

    The first round warms up and does not count. Modules are used as they are: put them into evaluation mode first.
    """
    device = inputs.device
    times: list[list[float]] = [[] for _ in modules]
    end = time.perf_counter() + budget
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for module, durations in zip(modules, times, strict=True):
                started = time.perf_counter()
                module(inputs)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:
                    durations.append(time.perf_counter() - started)
            if turn >= 3 and time.perf_counter() > end:
                break
    n = len(times[0]) if times else 0
    return tuple(Latency(d[0], d[n // 2], d[n // 4], d[(3 * n) // 4]) for d in map(sorted, times))
