"""A program in a file as a classifier: images (N, C, H, W) in [0, 1] in, one of its outputs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import ModelError


@dataclass(frozen=True)
class ImageInput:
    """What a program states of the images it takes; None for a size that it leaves open.

    ``batch`` is the only number of images it takes at once. ``channels_last`` is (N, H, W, C). ``white`` is the value
    of a white pixel: 1 or 255. ``whole`` is whether it takes whole numbers (``uint8``).
    """

    batch: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    channels_last: bool = False
    dtype: torch.dtype = torch.float32
    white: float = 1.0

    @property
    def whole(self) -> bool:
        return not self.dtype.is_floating_point


def read_input(sizes: Sequence[int | None], dtype: torch.dtype | None, *, where: str, name: str) -> ImageInput:
    """An input of a file, by its sizes and dtype; :class:`ModelError` where it takes no batches of images."""
    if dtype is None or not (dtype.is_floating_point or dtype in {torch.uint8, torch.int32}):
        raise ModelError(f"{where}: {name}", expected="an input of images", got=f"one of {dtype or 'another type'}")
    written = f"({', '.join('?' if size is None else str(size) for size in sizes)})"
    if len(sizes) == 3 and any(size in {1, 3, 4} for size in (sizes[0], sizes[2])):
        raise ModelError(
            f"{where}: {name}", expected="an input of images with a batch axis (N, C, H, W)", got=f"{written} without"
        )
    if len(sizes) != 4:
        raise ModelError(f"{where}: {name}", expected="an input of images (N, C, H, W)", got=written)
    batch, *rest = sizes
    last = rest[2] in {1, 3, 4} and rest[0] not in {1, 3, 4}
    channels, height, width = (rest[2], rest[0], rest[1]) if last else rest
    return ImageInput(batch, channels, height, width, last, dtype, 255.0 if not dtype.is_floating_point else 1.0)


@dataclass(frozen=True)
class OwnRuntime:
    """A program as it is, called in the runtime it was made for; ``batch`` is the only number it takes at once."""

    call: Callable[[Tensor], Tensor]
    batch: int | None = None


class ProgramClassifier(nn.Module):
    """``program`` behind what it takes: its batch, layout, dtype and range; ``output`` is which of its outputs counts.

    A program for one size of batch gets batches of it: the last one is filled up by repeating rows, which are cut off.
    Where it takes whole pixel values, images are rounded to them, and gradients pass the rounding as if it were not
    there: what the model says of an image is what the program says.

    ``original`` is the program in its own runtime where ``program`` is a conversion of it; it is called within
    :func:`in_own_runtime`.
    """

    def __init__(self, program: nn.Module, takes: ImageInput, *, output: int = 0) -> None:
        super().__init__()
        self.program = program
        self.takes = takes
        self.output = output
        self.original: OwnRuntime | None = None
        self.runs_original = False

    def forward(self, images: Tensor) -> Tensor:
        if self.runs_original and self.original is not None:
            return self.original.call(images)
        size, n = self.takes.batch, len(images)
        if size is None or n == size:
            return self._once(images)
        rows = torch.arange(-(-n // size) * size, device=images.device) % n
        return torch.cat([self._once(images[part]) for part in torch.split(rows, size)])[:n]

    def _once(self, images: Tensor) -> Tensor:
        return pick(self.all_outputs(images), self.output)

    def all_outputs(self, images: Tensor) -> Any:
        """All that the program puts out for one batch."""
        takes = self.takes
        values = images if takes.white == 1 else images * takes.white
        if takes.whole:
            values = values + (values.round().clamp(0, takes.white) - values).detach()
        else:
            values = values.to(takes.dtype)
        return self.program(values.permute(0, 2, 3, 1) if takes.channels_last else values)

    def with_batch(self, batch: int | None) -> ProgramClassifier:
        """The same, given batches of this size only (None: of any size)."""
        return ProgramClassifier(self.program, replace(self.takes, batch=batch), output=self.output)

    def extra_repr(self) -> str:
        takes = self.takes
        layout = "N, H, W, C" if takes.channels_last else "N, C, H, W"
        return f"({layout}), batch={takes.batch or 'any'}, {takes.dtype}, white={takes.white:g}, output={self.output}"


@contextmanager
def in_own_runtime(model: nn.Module) -> Iterator[tuple[OwnRuntime, ...]]:
    """Programs that were converted to torch run as they are for the length of a block; these programs."""
    programs = [each for each in model.modules() if isinstance(each, ProgramClassifier) and each.original is not None]
    for program in programs:
        program.runs_original = True
    try:
        yield tuple(program.original for program in programs if program.original is not None)
    finally:
        for program in programs:
            program.runs_original = False


def pick(outputs: Any, place: int) -> Tensor:
    """The output at ``place``, of a program with several."""
    chosen: Tensor = outputs[place] if isinstance(outputs, (tuple, list)) else outputs
    return chosen


def choose_output(outputs: Any, names: Sequence[str], *, where: str) -> int:
    """Which output is the logits: one of that name, else the first floating (N, K), else the first floating one.

    Raises :class:`ModelError` where there is none.
    """
    values = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    floating = [place for place, v in enumerate(values) if isinstance(v, Tensor) and v.is_floating_point()]
    if not floating:
        got = ", ".join(str(v.dtype) if isinstance(v, Tensor) else type(v).__name__ for v in values) or "none"
        raise ModelError(f"{where}: outputs", expected="a tensor of logits (N, K)", got=got)
    rows = [place for place in floating if values[place].ndim == 2]
    called = [place for place in rows if place < len(names) and names[place].lower() == "logits"]
    return next(iter((*called, *rows, *floating)))
