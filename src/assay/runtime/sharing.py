"""What is found out about a model is found out once, as long as nothing changes the model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
_known: ContextVar[dict[Hashable, Any] | None] = ContextVar("what is known of models", default=None)


@contextmanager
def unchanged_models() -> Iterator[None]:
    """A scope in which every model stays as it is but inside ``preserved``, so that :func:`once` finds out once."""
    if _known.get() is not None:
        yield
        return
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def once(key: Hashable, find: Callable[[], T]) -> T:
    """What ``find`` gives; inside :func:`unchanged_models` what it gave the first time for this ``key``."""
    known = _known.get()
    if known is None:
        return find()
    if key not in known:
        known[key] = find()
    value: T = known[key]
    return value
