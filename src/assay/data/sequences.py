"""Sequence tasks with known baselines: adding, copy memory, and images read row by row or pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import OptionError
from assay.runtime import generator

TRAIN, TEST = 0, 1
TOLERANCE = 0.04


@dataclass(frozen=True, eq=False)
class SequenceTask:
    """What a sequence model is trained on.

    ``draw(n, stream, step)`` gives inputs (n, T, F) and targets, which follow from its arguments and ``seed`` alone;
    the stream is ``TRAIN`` or ``TEST``. ``loss(output, target)`` is the mean over samples, in ``loss_unit``;
    ``baseline`` is the loss of a model without memory. ``right(output, target)``, bool (N,), is which sequences count
    as correct; ``right_is`` describes that. ``features`` and ``outputs`` are the widths of a model for the task;
    ``reads`` is whether its output is used after the ``last`` step or at ``every`` one.
    """

    name: str
    length: int
    features: int
    outputs: int
    reads: Literal["last", "every"]
    baseline: float
    baseline_is: str
    draw: Callable[[int, int, int], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    right: Callable[[Tensor, Tensor], Tensor]
    right_is: str
    loss_unit: str = "nats"
    seed: int = 0

    @property
    def shape(self) -> dict[str, Any]:
        return {"features": self.features, "outputs": self.outputs, "length": self.length, "reads": self.reads}


@checked
def adding_problem(length: int, *, seed: int = 0) -> SequenceTask:
    """T pairs (u_t, m_t), u uniform on [0, 1], two markers m = 1, one in each half; the target is the marked sum.

    The constant 1 has a mean squared error of 1/6, the variance of the sum of two uniforms; an output within 0.04 of
    the target is correct, as in the original. Reference: Hochreiter & Schmidhuber, *Long short-term memory* (1997),
    experiment 4, as posed by Le et al. (2015).
    Raises :class:`OptionError` for a length below 2.
    """
    _check_length(length, least=2)

    def draw(n: int, stream: int, step: int) -> tuple[Tensor, Tensor]:
        draws = generator(seed, 0xADD, stream, step)
        values = torch.rand(n, length, generator=draws)
        first = torch.randint(0, length // 2, (n,), generator=draws)
        second = torch.randint(length // 2, length, (n,), generator=draws)
        markers = torch.zeros(n, length)
        rows = torch.arange(n)
        markers[rows, first] = markers[rows, second] = 1
        return torch.stack([values, markers], dim=2), values[rows, first] + values[rows, second]

    return SequenceTask(
        name="adding",
        length=length,
        features=2,
        outputs=1,
        reads="last",
        baseline=1 / 6,
        baseline_is="always answering 1: MSE 1/6",
        draw=draw,
        loss=lambda output, target: F.mse_loss(output.flatten(), target),
        right=lambda output, target: (output.flatten() - target).abs() < TOLERANCE,
        right_is=f"off by less than {TOLERANCE}",
        loss_unit="squared error",
        seed=seed,
    )


@checked
def copy_memory(length: int, *, symbols: int = 8, items: int = 10, seed: int = 0) -> SequenceTask:
    """Ten symbols, ``length`` blanks, a signal, then the ten symbols are the targets: T + 20 steps in all.

    Guessing the symbols and knowing the blanks costs 10·ln 8/(T+20) nats a step. One-hot inputs of width 10.
    Reference: Arjovsky, Shah & Bengio, *Unitary evolution recurrent neural networks* (2016), section 5.1.
    """
    _check_length(length, least=1)
    total, blank, signal = length + 2 * items, symbols, symbols + 1

    def draw(n: int, stream: int, step: int) -> tuple[Tensor, Tensor]:
        draws = generator(seed, 0xC09, stream, step)
        held = torch.randint(0, symbols, (n, items), generator=draws)
        tokens = torch.full((n, total), blank)
        tokens[:, :items] = held
        tokens[:, total - items - 1] = signal
        target = torch.full((n, total), blank)
        target[:, -items:] = held
        return F.one_hot(tokens, symbols + 2).float(), target

    return SequenceTask(
        name="copy",
        length=total,
        features=symbols + 2,
        outputs=symbols + 1,
        reads="every",
        baseline=items * math.log(symbols) / total,
        baseline_is=f"guessing: {items}·ln {symbols}/(T+{2 * items})",
        draw=draw,
        loss=lambda output, target: F.cross_entropy(output.flatten(0, 1), target.flatten()),
        right=lambda output, target: (output.argmax(dim=2) == target)[:, -items:].all(dim=1),
        right_is=f"all {items} symbols recalled",
        seed=seed,
    )


@checked
def image_rows(
    dataset: ImageDataset, *, by: Literal["row", "pixel"] = "row", side: int | None = None, seed: int = 0
) -> SequenceTask:
    """Images as sequences: H steps of W·C numbers, or H·W steps of C numbers; resized to ``side`` first where given.

    Batches are drawn with replacement; the target is the class, the baseline the cross-entropy of the class shares.
    Pixels are centred: 2x − 1.
    """
    images = to_unit_range(dataset.images)
    if side is not None:
        images = F.interpolate(images, size=(side, side), mode="area")
    channels_last = (2 * images - 1).permute(0, 2, 3, 1)  # (N, H, W, C)
    sequences = channels_last.flatten(2) if by == "row" else channels_last.flatten(1, 2)
    shares = torch.bincount(dataset.labels, minlength=len(dataset.classes)).double() / len(dataset)
    baseline = float(-(shares * shares.clamp_min(1e-12).log()).sum())

    def draw(n: int, stream: int, step: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, len(sequences), (n,), generator=generator(seed, 0x13A6E, stream, step))
        return sequences[chosen], dataset.labels[chosen]

    _, length, features = sequences.shape
    return SequenceTask(
        name=f"{dataset.name} by {by}",
        length=length,
        features=features,
        outputs=len(dataset.classes),
        reads="last",
        baseline=baseline,
        baseline_is="the class shares",
        draw=draw,
        loss=F.cross_entropy,
        right=lambda output, target: output.argmax(dim=1) == target,
        right_is="of the right class",
        seed=seed,
    )


SYNTHETIC_TASKS = ("adding", "copy")


def make_task(name: str, *, length: int, seed: int = 0) -> SequenceTask:
    """The task of that name, one of :data:`SYNTHETIC_TASKS`. Raises :class:`OptionError` for a small length."""
    return {"adding": adding_problem, "copy": copy_memory}[name](length, seed=seed)


def _check_length(length: int, *, least: int) -> None:
    if length < least:
        raise OptionError("length", expected=f"at least {least} steps", got=length)
