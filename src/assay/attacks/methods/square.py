"""Square Attack: random search without gradients, over squares under L∞ and over windows under L2 and L1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks import draws
from assay.attacks.batch import ActiveBatch, Method, ModelOutput, Samples, initial_fields
from assay.attacks.losses import AttackLoss, margin
from assay.attacks.options import AttackOptions, AttackPlan, Queries, Restarts, register
from assay.attacks.threat import Threat, column

_INITIAL_SHARE = 0.8  # p: the share of the image that the first squares cover
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: after each the share halves
_TILES = 5  # along each side, of the first image under L2 and L1
_SMALLEST = 3  # pixels: the side of the smallest window under L2 and L1
_TINY = 1e-12


@register
class Square(AttackOptions):
    """Square Attack: black-box random search that changes one random square of the image a query.

    Attributes:
        queries: forward passes a sample may cost in one run, at least 1.
        restarts: runs from different random starts, at least 1.

    Example:
        >>> import assay
        >>> assay.Square(queries=1000).describe(assay.Threat())  # queries, step size, restarts
        (1000, None, 1)

    Reference:
        Andriushchenko et al. 2020, arXiv:1912.00049.
    """

    name: ClassVar[str] = "square"
    queries: Queries = 5000
    restarts: Restarts = 1

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        kind = SquareMethod if threat.norm == "linf" else SquareLpMethod
        method = partial(kind, name=self.name, steps=self.queries - 1, seed=seed)
        return AttackPlan(tuple(method(stream=restart) for restart in range(self.restarts)))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        return (self.queries, None, self.restarts)


@dataclass(eq=False)
class SquareBatch(ActiveBatch):
    """The best image so far and its loss."""

    best: Tensor
    best_loss: Tensor

    def keep_better(self, losses: Tensor) -> None:
        better = losses > self.best_loss
        self.best = torch.where(column(better), self.iterate, self.best)
        self.best_loss = torch.where(better, losses, self.best_loss)


@dataclass(frozen=True, kw_only=True)
class _RandomSearch(Method[SquareBatch]):
    loss: AttackLoss = margin
    takes_gradients: bool = False

    def _start(self, samples: Samples, iterate: Tensor) -> SquareBatch:
        return SquareBatch(
            **initial_fields(samples, iterate=iterate, gradient=False),
            best=iterate,
            best_loss=torch.full_like(samples.epsilon, -torch.inf),
        )

    def _draw_window(self, batch: ActiveBatch, side: Tensor, key: int) -> tuple[Tensor, Tensor, Tensor]:
        """A random square of each row's ``side`` (B,): offsets from its corner, (B, H) and (B, W); bool (B, H, W)."""
        height, width = batch.images.shape[2:]
        place = draws.uniform(batch.ids, self.seed, key, self.stream, batch.step, size=2)
        top = (place[:, 0] * (height - side + 1)).long()
        left = (place[:, 1] * (width - side + 1)).long()
        down = torch.arange(height, device=side.device) - top[:, None]
        right = torch.arange(width, device=side.device) - left[:, None]
        limit = side[:, None]
        inside = ((down >= 0) & (down < limit))[:, :, None] & ((right >= 0) & (right < limit))[:, None, :]
        return down, right, inside


@dataclass(frozen=True, kw_only=True)
class SquareMethod(_RandomSearch):
    """Square Attack (Andriushchenko et al. 2020), L∞: algorithm 2, every sample with squares of its own.

    It starts from vertical stripes of ±ε; each query sets one random square to ±ε a channel, and keeps it where the
    margin improves. The square covers a share p of the image, halved on the published schedule, which is rescaled to
    the number of queries.
    """

    def begin(self, samples: Samples, threat: Threat) -> SquareBatch:
        n, channels, _, width = samples.images.shape
        signs = draws.signs(samples.ids, self.seed, 0x51, self.stream, size=channels * width)
        stripes = signs.to(samples.images).reshape(n, channels, 1, width)
        return self._start(samples, threat.clip(samples.images + column(samples.epsilon) * stripes))

    def advance(self, batch: SquareBatch, output: ModelOutput, threat: Threat) -> SquareBatch:
        batch.keep_better(output.losses)
        channels, height, width = batch.images.shape[1:]
        side = square_sides(batch.step, self.steps, height, width)
        _, _, inside = self._draw_window(batch, side, 0x52)
        signs = draws.signs(batch.ids, self.seed, 0x53, self.stream, batch.step, size=channels)
        # 2ε from one border of the ball reaches the other; the clamp cuts what lies beyond.
        bound = column(batch.epsilon)
        changed = batch.best + 2.0 * bound * signs.to(batch.images)[:, :, None, None]
        changed = torch.clamp(changed, batch.images - bound, batch.images + bound)
        batch.iterate = threat.clip(torch.where(inside[:, None], changed, batch.best))
        batch.step = batch.step + 1
        return batch


def square_sides(step: Tensor, steps: int, height: int, width: int, *, smallest: int = 1) -> Tensor:
    """The side of each row's square after ``step`` (B,) of ``steps`` queries, int64 (B,)."""
    passed = torch.div(step * 10_000, steps + 1, rounding_mode="floor")
    halved = (passed[:, None] > torch.tensor(_HALVINGS, device=step.device)).sum(dim=1)
    share = _INITIAL_SHARE * 0.5 ** halved.double()
    return (share * height * width).sqrt().round().long().clamp_min(smallest).clamp_max(min(height, width))


@dataclass(frozen=True, kw_only=True)
class SquareLpMethod(_RandomSearch):
    """Square Attack (Andriushchenko et al. 2020), algorithm 3, every sample with windows of its own.

    A query empties one window and moves its length, with what was not yet used of ε, into another: there the old
    change and a bump η·±1, of two halves of opposite sign, are added and rescaled channel by channel. With q = 2 under
    L2 and 1 under L1, a channel of the new window gets (Σ|δ|^q over both windows + (ε^q − Σ|δ|^q)₊/C)^{1/q}; the whole
    is scaled to ε and cut by the bounds. Under L1 the cut is the nearest point of ball and bounds (Croce & Hein 2021).
    """

    def begin(self, samples: Samples, threat: Threat) -> SquareBatch:
        n, channels, height, width = samples.images.shape
        side = max(min(height, width) // _TILES, 1)
        rows, columns = (
            torch.arange(size, device=samples.index.device) - (size - _TILES * side) // 2 for size in (height, width)
        )
        across = -(-width // side) + 1
        tile = (rows // side + 1)[:, None] * across + columns // side + 1  # (H, W); −1 lies left of the first
        tiles = int(tile.max()) + 1
        place = (rows % side)[:, None] * side + columns % side
        turned = (rows % side)[:, None] + (columns % side) * side
        bump = _bump(side).to(samples.images).flatten()
        turns = draws.signs(samples.ids, self.seed, 0x54, self.stream, size=tiles)[:, tile] > 0  # (B, H, W)
        pattern = torch.where(turns, bump[turned], bump[place])[:, None]
        signs = draws.signs(samples.ids, self.seed, 0x55, self.stream, size=channels * tiles).to(samples.images)
        delta = pattern * signs.reshape(n, channels, tiles)[:, :, tile]
        inside = ((rows >= 0) & (rows < _TILES * side))[:, None] & (columns >= 0) & (columns < _TILES * side)
        return self._start(samples, _scale(delta * inside, samples.images, samples.epsilon, threat))

    def advance(self, batch: SquareBatch, output: ModelOutput, threat: Threat) -> SquareBatch:
        batch.keep_better(output.losses)
        power = 2 if threat.norm == "l2" else 1
        delta = batch.best - batch.images
        height, width = delta.shape[2:]
        side = square_sides(batch.step, self.steps, height, width, smallest=_SMALLEST)
        side = (side + 1 - side % 2).clamp_max(min(height, width))
        bump, into = self._draw_bump(batch, side)
        out_of = self._draw_window(batch, side, 0x57)[2][:, None]
        sizes = delta.abs() ** power
        unused = (column(batch.epsilon) ** power - sizes.sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0.0)
        budget = (sizes * (into | out_of)).sum(dim=(2, 3), keepdim=True) + unused / delta.shape[1]
        fresh = bump + _unit(delta * into, power)
        moved = torch.where(into, _unit(fresh, power) * budget ** (1 / power), torch.where(out_of, 0.0, delta))
        batch.iterate = _scale(moved, batch.images, batch.epsilon, threat)
        batch.step = batch.step + 1
        return batch

    def _draw_bump(self, batch: ActiveBatch, side: Tensor) -> tuple[Tensor, Tensor]:
        """A bump in a random window with a sign for each channel, (B, C, H, W), and the window, bool (B, 1, H, W)."""
        channels, height, width = batch.images.shape[1:]
        down, right, inside = self._draw_window(batch, side, 0x56)
        signs = draws.signs(batch.ids, self.seed, 0x58, self.stream, batch.step, size=channels + 1).to(batch.images)
        largest = min(height, width)
        table = _bumps(largest).to(batch.images)  # (sides, largest²), one row a side
        turned = signs[:, channels, None, None] > 0
        down, right = down.clamp(0, largest - 1)[:, :, None], right.clamp(0, largest - 1)[:, None, :]
        spots = torch.where(turned, right * largest + down, down * largest + right)
        pattern = table[side].gather(1, spots.flatten(1)).reshape(inside.shape) * inside
        return pattern[:, None] * signs[:, :channels, None, None], inside[:, None]


def _scale(delta: Tensor, images: Tensor, epsilon: Tensor, threat: Threat) -> Tensor:
    """The images, changed by ``delta`` scaled to length ε as far as the bounds allow."""
    length = threat.geometry.distance(delta).clamp_min(_TINY)
    return threat.project(images + delta * column(epsilon / length), images, epsilon)


def _unit(values: Tensor, power: int) -> Tensor:
    """Each channel of each image scaled to length 1, zero where it is zero."""
    length = (values.abs() ** power).sum(dim=(2, 3), keepdim=True) ** (1 / power)
    return values / length.clamp_min(_TINY)


def _bump(side: int) -> Tensor:
    """η (side, side) of L2 norm 1: two halves of opposite sign, each falling off from its middle."""
    upper = side // 2
    bump = torch.cat([_half(upper, side), -_half(side - upper, side)])
    return bump / bump.square().sum().sqrt()


def _half(height: int, width: int) -> Tensor:
    """Σ_{k ≥ d} 1/(k + 1)² at distance d (of the larger coordinate) from the middle, of L2 norm 1."""
    if height == 0:
        return torch.zeros(0, width)
    rows, columns = (torch.arange(size) - size // 2 for size in (height, width))
    radius = max(height, width) // 2 + 1
    tail = (1.0 / torch.arange(1, radius + 1) ** 2).flip(0).cumsum(0).flip(0)
    values = tail[torch.maximum(rows.abs()[:, None], columns.abs()[None, :])]
    return values / values.square().sum().sqrt()


@cache
def _bumps(largest: int) -> Tensor:
    """(largest + 1, largest²): the bump of each side, in the corner of a square of the largest."""
    table = torch.zeros(largest + 1, largest, largest)
    for side in range(1, largest + 1):
        table[side, :side, :side] = _bump(side)
    return table.flatten(1)
