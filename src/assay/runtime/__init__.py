"""Device, precision, memory and random numbers; ``model_state.py`` leaves a model as it was found."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.errors import OptionError
from assay.records.base import Environment
from assay.runtime.model_state import hooked as hooked
from assay.runtime.model_state import preserved as preserved


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; a name that this machine lacks raises :class:`OptionError`."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, present in available.items() if present))
    if not available.get(name.split(":", maxsplit=1)[0], False):
        present = ", ".join(kind for kind, here in available.items() if here)
        raise OptionError("device", expected=f"auto or one of: {present}", got=name)
    return torch.device(name)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies ``bfloat16`` in hardware; convolutions are then up to twice as fast in it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(_BFLOAT16_FLAGS & _processor_flags())


_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # Intel and AMD, Intel with tiles, Arm


def _processor_flags() -> frozenset[str]:
    """The instruction-set extensions that Linux lists of the first processor; none elsewhere."""
    return frozenset(_cpuinfo("flags", "Features").split())


def _cpuinfo(*fields: str) -> str:
    """The first value of any of these fields in ``/proc/cpuinfo``; empty without one."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else []:
        name, _, value = line.partition(":")
        if name.strip() in fields:
            return value.strip()
    return ""


def keep_freed_memory() -> bool:
    """Let this process keep large freed blocks for the next allocation; False where the C library is not glibc.

    By default glibc returns every block of 32 MiB and more to the system at once, and the next tensor of that size
    faults its pages in again: about a sixth of a float32 training step. The price is that the process never shrinks.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim_threshold, mmap_threshold, never = -1, -3, 2**31 - 1  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    return all(mallopt(option, never) for option in (trim_threshold, mmap_threshold))


def uncompiled() -> AbstractContextManager[None]:
    """For the length of a block, compiled modules run as they were written, so that hooks see what they compute.

    Nothing was compiled where the compiler was never imported; importing it takes seconds.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model without any."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the first floating parameter, or else buffer; ``float32`` for a model without any."""
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def pixel_dtype(model: nn.Module) -> torch.dtype:
    """The dtype for images under small perturbations: that of the model, but at least float32."""
    return torch.promote_types(dtype_of(model), torch.float32)


def exact_device(device: torch.device) -> torch.device:
    """``device`` itself if it has float64, else the CPU: where numbers are projected, summed and compared exactly."""
    if device.type in ("cpu", "cuda"):
        return device
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return device


def to_double(tensor: Tensor) -> Tensor:
    """``tensor`` in float64, on the CPU if its own device has none."""
    return tensor.to(exact_device(tensor.device), torch.float64)


def generator(*key: int) -> torch.Generator:
    """A CPU generator whose state depends on every number of ``key`` (seed, stream, epoch, …) and on nothing else.

    The numbers are mixed by the splitmix64 finaliser, so neighbouring keys give unrelated streams.
    """
    mask = (1 << 64) - 1
    state = 0x9E3779B97F4A7C15
    for part in key:
        state = (state ^ (part & mask)) * 0xBF58476D1CE4E5B9 & mask
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)


def describe_environment(device: torch.device) -> Environment:
    """Versions, cores, threads and memory of this process; no host name, user name or path."""
    return Environment(
        assay=version("assay"),
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=version("numpy"),
        platform=f"{platform.system()} {platform.machine()}",
        processor=_cpuinfo("model name") or platform.processor() or "unknown",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=str(device),
        memory_gib=round(memory_bytes() / 2**30, 1),
    )


def memory_bytes() -> int:
    """The physical memory of this machine; 0 where the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
