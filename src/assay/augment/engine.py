"""Runs the compiled kernels: compiles them once and spreads a batch over threads.

numba's own parallel loops are not used: its thread pool must not be entered from two threads at once, and the OpenMP
one does not survive a fork, which is how data loaders start their workers. Plain threads do; the kernels release the
lock of the interpreter. Their number is torch's (``torch.set_num_threads``): 1 in a data loader's worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Timer
from typing import Any

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_PIXELS_PER_THREAD = 1 << 17  # with less, about 0.1 ms of work, starting a thread takes longer
_SECONDS_UNTIL_ANNOUNCED = 2.0  # loading from the cache takes less, compiling more


@dataclass(frozen=True)
class Preparation:
    """How the kernels came to be: ``seconds`` it took, whether they were ``cached`` on disk, and in which folder."""

    seconds: float
    cached: bool
    folder: str | None


def prepare_kernels() -> Preparation:
    """Compile the kernels, or load them from numba's cache, now rather than in the first batch.

    The cache lies beside the package, or in the user's cache folder where that is read-only (``NUMBA_CACHE_DIR``
    overrides both). The first compilation takes some ten seconds; a log message announces it.
    """
    return _prepare()[1]


def run_kernels(
    images: Tensor, codes: Tensor, magnitudes: Tensor, places: Tensor, *, fill: Tensor, bilinear: bool
) -> Tensor:
    """See :func:`assay.augment.plan.apply_plan`, whose checks it relies on; all tensors are on the CPU."""
    run = _prepare()[0]
    output = torch.empty_like(images)
    arguments = tuple(tensor.numpy() for tensor in (images, codes, magnitudes, places, fill))
    threads = min(torch.get_num_threads(), 1 + images.numel() // _PIXELS_PER_THREAD)
    size = len(images) if threads == 1 else -(-len(images) // (4 * threads))
    parts = iter([(start, min(start + size, len(images))) for start in range(0, len(images), max(size, 1))])

    def work() -> None:
        for start, stop in parts:  # the threads share one iterator: a free thread takes the next part
            run(*arguments, bilinear, output.numpy(), start, stop)

    if threads == 1:
        work()
        return output
    with ThreadPoolExecutor(threads - 1) as pool:  # made for this call: a lasting pool would not survive a fork
        helpers = [pool.submit(work) for _ in range(threads - 1)]
        work()
        for helper in helpers:
            helper.result()
    return output


def announce() -> None:
    logger.warning(
        "compiling the augmentation kernels: ten seconds or more, once on this machine (then they load from the cache)"
    )


@cache
def _prepare() -> tuple[Callable[..., None], Preparation]:
    announcement = Timer(_SECONDS_UNTIL_ANNOUNCED, announce)
    announcement.daemon = True
    announcement.start()
    started = time.perf_counter()
    try:
        from assay.augment.kernels.program import build_runner

        run: Any = build_runner()
        picture, row = np.zeros((1, 1, 1, 1), np.uint8), np.zeros((1, 1))
        run(picture, row.astype(np.uint8), row, np.zeros((1, 1, 2), np.int32), picture[0, 0, 0], False, picture, 0, 1)
    finally:
        announcement.cancel()
    cached = sum(run.stats.cache_hits.values()) > 0
    return run, Preparation(time.perf_counter() - started, cached=cached, folder=run.stats.cache_path)
