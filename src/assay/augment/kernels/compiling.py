"""How the kernels are compiled: without the interpreter's lock, and with C's division."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function, *, cached: bool = False) -> Function:
    """Compile at the first call; calls between kernels are compiled into their caller."""
    return njit(nogil=True, error_model="numpy", cache=cached)(function)  # type: ignore[no-any-return]  # numba is untyped
