"""How the kernels are compiled: without the interpreter's lock, and with C's division."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function, *, cached: bool = False) -> Function:
    """Compile at the first call; calls between kernels become part of their caller.

    That is forced: passing arrays to a function takes as long as moving a short row does.
    """
    options = {"nogil": True, "error_model": "numpy", "cache": cached, "forceinline": not cached}
    return njit(**options)(function)  # type: ignore[no-any-return]  # numba is untyped
