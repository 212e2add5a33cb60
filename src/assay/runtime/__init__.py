"""Device, precision, memory, random numbers, and a block that leaves a model as it was found."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from assay.errors import OptionError
from assay.records.base import Environment


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


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model without any."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating dtype of the first floating parameter; ``float32`` for a model without any."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)


def pixel_dtype(model: nn.Module) -> torch.dtype:
    """The dtype for images under small perturbations: that of the model, but at least float32."""
    return torch.promote_types(dtype_of(model), torch.float32)


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


@contextmanager
def preserved(model: nn.Module, *, training: bool | None = None) -> Iterator[nn.Module]:
    """Run a block, then put back every module's mode, every ``requires_grad`` and ``.grad``, and every buffer.

    ``training`` sets the mode inside the block (False: evaluation; None: as found). The global random state of torch
    is put back as well, so measuring never changes what a user's program draws next.
    """
    modes = {module: module.training for module in model.modules()}
    gradients = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers() if not is_lazy(buffer)}
    random_state = torch.get_rng_state()
    if training is not None:
        model.train(training)
    for parameter, _, _ in gradients:
        parameter.grad = None
    try:
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, needs_gradient, gradient in gradients:
            if parameter.requires_grad != needs_gradient:  # setting it, even to its own value, fails on a lazy one
                parameter.requires_grad_(needs_gradient)
            parameter.grad = gradient
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers and not torch.equal(buffer, buffers[name]):
                    buffer.copy_(buffers[name])
        torch.set_rng_state(random_state)


@contextmanager
def hooked(*handles: RemovableHandle) -> Iterator[None]:
    """Remove the hooks when the block ends, however it ends."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


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
