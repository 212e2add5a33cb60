"""A program as a module: steps that are run one after another, each a layer of torch or a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Step:
    """``run`` on the values called ``inputs``; its results are called ``outputs``.

    ``run`` is a function, or the path of a layer in the module that the steps belong to. An input or output without a
    name is None.
    """

    run: Callable[..., Any] | str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class BatchNorm2d(nn.BatchNorm2d):
    """Of images or rows of features alike."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class Graph(nn.Module):
    """The steps of a program, with its weights in layers where they belong to one, else in parameters and buffers.

    ``stored`` maps the name of a value to the path of the tensor it is; ``results`` are the names of what it returns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.image = ""
        self.steps: tuple[Step, ...] = ()
        self.stored: dict[str, str] = {}
        self.results: tuple[str, ...] = ()
        self.finished: tuple[tuple[str, ...], ...] = ()  # values that are not needed after a step

    def finish(self, image: str, steps: Sequence[Step], results: Sequence[str], *, pure: bool) -> None:
        """Set what is run: the steps that the ``results`` for an ``image`` depend on; all, where some write in place.

        ``pure`` is whether no step changes a value of another one.
        """
        needed, chosen = {*results}, []
        for step in reversed(steps):
            if needed & {*step.outputs} or not pure:
                chosen.append(step)
                needed |= {*step.inputs}
        self.image, self.steps, self.results = image, tuple(reversed(chosen)), tuple(results)
        last: dict[str, int] = {}
        for place, step in enumerate(self.steps):
            last |= dict.fromkeys((*step.inputs, *step.outputs), place)
        ends: list[list[str]] = [[] for _ in self.steps]
        for name, place in last.items():
            if name not in results:
                ends[place].append(name)
        self.finished = tuple(map(tuple, ends))
        self.stored = {name: path for name, path in self.stored.items() if name in needed or name in results}

    def add_layer(self, path: str, layer: nn.Module) -> str:
        """Put a layer at ``path``, as ``layer1.0.conv``; a taken path gets a number. Returns the path."""
        path = _legal(path)
        while _find(self, path) is not None:
            stem, _, number = path.rpartition("__")
            path = f"{stem}__{int(number) + 1}" if stem and number.isdigit() else f"{path}__2"
        parent, name = self._container(path)
        parent.add_module(name, layer)
        return path

    def add_tensor(self, value: str, path: str, tensor: Tensor) -> None:
        """Store the ``tensor`` that is the value called ``value`` at ``path``."""
        parent, name = self._container(_legal(path))
        if isinstance(tensor, nn.Parameter):
            parent.register_parameter(name, tensor)
        else:
            parent.register_buffer(name, tensor)
        self.stored[value] = _legal(path)

    def _container(self, path: str) -> tuple[nn.Module, str]:
        *parts, name = path.split(".")
        parent: nn.Module = self
        for part in parts:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        return parent, name

    def forward(self, image: Tensor) -> tuple[Any, ...]:
        values: dict[str, Any] = {"": None, self.image: image}
        values |= {name: _find(self, path) for name, path in self.stored.items()}
        for step, finished in zip(self.steps, self.finished, strict=True):
            run = self.get_submodule(step.run) if isinstance(step.run, str) else step.run
            result = run(*(values[name] for name in step.inputs))
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False))
            for name in finished:
                values.pop(name, None)
            values[""] = None
        return tuple(values[name] for name in self.results)

    def extra_repr(self) -> str:
        return f"{len(self.steps)} steps"


def _find(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def _legal(path: str) -> str:
    """``path`` with names that a module can have: none empty, and none of its own attributes."""
    names = (re.sub(r"\W", "_", part) for part in path.split("."))
    return ".".join(f"{name}_" if not name or hasattr(nn.Module, name) or name in _OWN else name for name in names)


_OWN = frozenset({"image", "steps", "stored", "results", "finished", "training"})
