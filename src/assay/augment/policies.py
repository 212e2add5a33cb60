"""Policies: which operations happen to which sample, drawn from (seed, epoch, sample id) alone.

Policies add up: ``crop(4) + flip() + RandAugment()`` does one after the other, in one pass over the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.arguments import checked, checked_kinds
from assay.augment.operations import check_magnitude, find_operation
from assay.augment.plan import AugmentPlan, Fill, Interpolation, apply_plan, check_images
from assay.augment.randomness import draw_uniforms
from assay.errors import DataError, OptionError


class Augmentation(Protocol):
    """Bytes in, bytes of the same shape out; what happens to a sample depends on (seed, epoch, its id) alone."""

    def __call__(self, images: Tensor, ids: Tensor, *, seed: int, epoch: int) -> Tensor:
        """``images`` uint8 (B, C, H, W) and ``ids`` int64 (B,) to uint8 (B, C, H, W); the input is left as it was."""


@dataclass(frozen=True, eq=False)
class RandomStreams:
    """Independent streams of random numbers, one number a sample in each; ``first`` is the number of stream 0."""

    ids: Tensor
    seed: int
    epoch: int
    first: int = 0

    def uniform(self, stream: int) -> Tensor:
        return self.after(stream).uniforms(1)[0]

    def uniforms(self, count: int) -> Tensor:
        """float64 (count, B) in [0, 1): the streams 0..count−1 in one go."""
        slots = range(self.first, self.first + count)
        return torch.from_numpy(draw_uniforms(self.ids, seed=self.seed, epoch=self.epoch, slots=slots))

    def integers(self, bound: int, stream: int) -> Tensor:
        return (self.uniform(stream) * bound).long()

    def after(self, count: int) -> RandomStreams:
        """Without the first ``count`` streams."""
        return RandomStreams(self.ids, self.seed, self.epoch, self.first + count)


class Policy(ABC):
    """A random plan for each sample; a subclass draws it from the first ``stream_count`` streams of random numbers."""

    @property
    @abstractmethod
    def stream_count(self) -> int:
        """How many streams :meth:`draw` reads."""

    @abstractmethod
    def draw(self, rng: RandomStreams, *, height: int, width: int) -> AugmentPlan:
        """The operations of each sample."""

    def plan(self, ids: Tensor, *, seed: int, epoch: int, height: int, width: int) -> AugmentPlan:
        """What :meth:`__call__` does to the samples ``ids`` (int64 (B,)) of images of this size."""
        return self.draw(RandomStreams(ids, seed, epoch), height=height, width=width)

    def __call__(
        self,
        images: Tensor,
        ids: Tensor,
        *,
        seed: int,
        epoch: int,
        fill: Fill = 0,
        interpolation: Interpolation = "nearest",
    ) -> Tensor:
        """See :class:`Augmentation`; ``fill`` and ``interpolation`` as in :func:`~assay.augment.plan.apply_plan`."""
        check_images(images)
        if not isinstance(ids, Tensor) or ids.shape != (len(images),) or ids.dtype != torch.int64:
            got = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
            raise DataError("ids", expected=f"int64 ({len(images)},)", got=got)
        plan = self.plan(ids, seed=seed, epoch=epoch, height=images.shape[2], width=images.shape[3])
        return apply_plan(images, plan, fill=fill, interpolation=interpolation)

    def __add__(self, other: Policy) -> Chain:
        return Chain((*_links(self), *_links(other)))


@dataclass(frozen=True)
class Chain(Policy):
    """One policy after the other, each with its own streams."""

    links: tuple[Policy, ...]

    @property
    def stream_count(self) -> int:
        return sum(link.stream_count for link in self.links)

    def draw(self, rng: RandomStreams, *, height: int, width: int) -> AugmentPlan:
        plans = []
        for link in self.links:
            plans.append(link.draw(rng, height=height, width=width))
            rng = rng.after(link.stream_count)
        return reduce(AugmentPlan.then, plans)


def _links(policy: Policy) -> tuple[Policy, ...]:
    return policy.links if isinstance(policy, Chain) else (policy,)


@dataclass(frozen=True)
class Step(Policy):
    """One operation with a magnitude drawn uniformly from ``low``..``high``, done to a share ``p`` of the samples.

    Pixels and bits are drawn as whole numbers, both ends included. A Crop's corner and a Cutout's centre are drawn too.
    Raises :class:`OptionError` for an unknown operation, a magnitude out of range, or a ``p`` outside [0, 1].
    """

    stream_count: ClassVar[int] = 4  # whether, how much, and where (row, column)
    operation: str
    low: float = 0.0
    high: float | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        operation = find_operation(self.operation)
        check_magnitude(operation, self.low)
        check_magnitude(operation, self.low if self.high is None else self.high)
        if self.high is not None and self.high < self.low:
            got = f"{self.low:g}, {self.high:g}"
            raise OptionError(f"magnitudes of {operation.name}", expected="low ≤ high", got=got)
        if not 0.0 <= self.p <= 1.0:
            raise OptionError(f"p of {operation.name}", expected="a probability, 0..1", got=self.p)

    def draw(self, rng: RandomStreams, *, height: int, width: int) -> AugmentPlan:
        operation = find_operation(self.operation)
        happens = rng.uniform(0) < self.p
        high = self.low if self.high is None else self.high
        share, span = rng.uniform(1), high - self.low
        integral = operation.unit in {"px", "bits"}
        magnitudes = (self.low + share * (span + 1)).floor() if integral else self.low + share * span
        places = torch.zeros(len(share), 2, dtype=torch.int32)
        if operation.name in {"Crop", "Cutout"}:
            bounds = (2 * magnitudes + 1,) * 2 if operation.name == "Crop" else (height, width)
            places = torch.stack([rng.uniform(2) * bounds[0], rng.uniform(3) * bounds[1]], dim=1).int()
        codes = torch.where(happens, operation.code, 0).byte()
        return AugmentPlan(codes[:, None], magnitudes[:, None], places[:, None])


@dataclass(frozen=True)
class Choice(Policy):
    """``count`` times: one of the ``options``, each with the same chance, drawn for each sample."""

    count: int
    options: tuple[Policy, ...]

    def __post_init__(self) -> None:
        check_integer("count of choose", self.count, lowest=1)
        if not self.options:
            raise OptionError("choose", expected="a count and one policy or more", got=f"{self.count} of none")

    @property
    def stream_count(self) -> int:
        return self.count * (1 + sum(option.stream_count for option in self.options))

    def draw(self, rng: RandomStreams, *, height: int, width: int) -> AugmentPlan:
        plans: list[AugmentPlan] = []
        for _ in range(self.count):
            chosen = rng.integers(len(self.options), 0)
            rng = rng.after(1)
            drawn: list[AugmentPlan] = []
            for option in self.options:
                drawn.append(option.draw(rng, height=height, width=width))
                rng = rng.after(option.stream_count)
            plans.append(_pick(drawn, chosen))
        return reduce(AugmentPlan.then, plans)


def check_integer(name: str, value: object, *, lowest: int, highest: int | None = None) -> None:
    """Raise :class:`OptionError` unless ``value`` is an integer of this range."""
    if isinstance(value, int) and lowest <= value and (highest is None or value <= highest):
        return
    ends = f"of at least {lowest}" if highest is None else f"in {lowest}..{highest}"
    raise OptionError(name, expected=f"a whole number {ends}", got=repr(value))


def _pick(plans: list[AugmentPlan], chosen: Tensor) -> AugmentPlan:
    """Of each sample the row of the plan numbered ``chosen`` (B,); shorter plans are filled with Identity, code 0."""
    steps, samples = max(plan.codes.shape[1] for plan in plans), torch.arange(len(chosen))

    def pick(tensors: list[Tensor]) -> Tensor:
        filled = [torch.cat([t, t.new_zeros(len(t), steps - t.shape[1], *t.shape[2:])], dim=1) for t in tensors]
        return torch.stack(filled)[chosen, samples]

    columns = ([plan.codes for plan in plans], [plan.magnitudes for plan in plans], [plan.places for plan in plans])
    return AugmentPlan(*map(pick, columns))


@checked
def crop(padding: int = 4) -> Step:
    """Pad by ``padding`` pixels on every side and cut the old size out at a random place."""
    return Step("Crop", padding)


@checked
def flip(p: float = 0.5) -> Step:
    """Mirror a share ``p`` of the samples."""
    return Step("Flip", p=p)


@checked
def cutout(side: int = 8, p: float = 1.0) -> Step:
    """Blank a square of this side about a random pixel (DeVries & Taylor 2017, arXiv:1708.04552)."""
    return Step("Cutout", side, p=p)


@checked_kinds("count")
def choose(count: int, *options: Policy) -> Choice:
    """``count`` times one of the options, for each sample."""
    return Choice(count, options)


@checked
def flip_crop(*, padding: int = 4, flip: bool = True) -> Policy:
    """The plain augmentation of small photographs: pad, crop, mirror half (He et al. 2016, section 4.2)."""
    return crop(padding) + Step("Flip", p=0.5) if flip else crop(padding)
