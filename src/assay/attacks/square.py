"""Square Attack: random search over squares, without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.attacks import draws
from assay.attacks.lanes import Answer, Keeps, Lanes, Samples, lane_fields
from assay.attacks.losses import Loss, margin
from assay.attacks.threat import Threat, column

_INITIAL_SHARE = 0.8  # p: the share of the image that the first squares cover
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: after each the share halves


@dataclass(eq=False)
class SquareLanes(Lanes):
    """Lanes with the best image so far and its margin."""

    best: Tensor
    best_loss: Tensor


@dataclass(frozen=True)
class Square:
    """Square Attack (Andriushchenko et al. 2020), L∞: algorithm 2, every sample with squares of its own.

    It starts from vertical stripes of ±ε; each query repaints one random square with ±ε a channel, and keeps it where
    the margin improves. The square covers a share p of the image, halved on the published schedule, which is rescaled
    to the number of queries.
    """

    name: str = "square"
    steps: int = 4999
    seed: int = 0
    stream: int = 0
    keeps: Keeps = "first"
    stays_inside: bool = True
    loss: Loss = margin

    def begin(self, samples: Samples, threat: Threat) -> SquareLanes:
        """Vertical stripes."""
        n, channels, _, width = samples.images.shape
        signs = draws.signs(samples.ids, self.seed, 0x51, self.stream, size=channels * width)
        stripes = signs.to(samples.images).reshape(n, channels, 1, width)
        candidate = threat.clip(samples.images + column(samples.epsilon) * stripes)
        return SquareLanes(
            **lane_fields(samples, candidate=candidate, gradient=False),
            best=candidate,
            best_loss=torch.full_like(samples.epsilon, -torch.inf),
        )

    def advance(self, lanes: SquareLanes, answer: Answer, threat: Threat) -> SquareLanes:
        """Keep what improved, and try another square."""
        better = answer.losses > lanes.best_loss
        lanes.best = torch.where(column(better), lanes.candidate, lanes.best)
        lanes.best_loss = torch.where(better, answer.losses, lanes.best_loss)
        inside, signs = self._square(lanes)
        # 2ε from the border on one side reaches the other; the projection cuts what lies beyond.
        painted = lanes.best + 2.0 * column(lanes.epsilon) * signs
        bound = column(lanes.epsilon)
        painted = torch.clamp(painted, lanes.images - bound, lanes.images + bound)
        lanes.candidate = threat.clip(torch.where(inside, painted, lanes.best))
        lanes.step = lanes.step + 1
        return lanes

    def _square(self, lanes: SquareLanes) -> tuple[Tensor, Tensor]:
        """bool (B, 1, H, W) inside the square, and ±1 (B, C, 1, 1)."""
        _, channels, height, width = lanes.images.shape
        side = square_sides(lanes.step, self.steps, height, width)
        place = draws.uniform(lanes.ids, self.seed, 0x52, self.stream, lanes.step, size=2)
        top = (place[:, 0] * (height - side + 1)).long()
        left = (place[:, 1] * (width - side + 1)).long()
        signs = draws.signs(lanes.ids, self.seed, 0x53, self.stream, lanes.step, size=channels)
        rows = torch.arange(height, device=side.device)
        columns = torch.arange(width, device=side.device)
        tall = (rows >= top[:, None]) & (rows < (top + side)[:, None])
        wide = (columns >= left[:, None]) & (columns < (left + side)[:, None])
        return (tall[:, :, None] & wide[:, None, :])[:, None], signs.to(lanes.images)[:, :, None, None]


def square_sides(step: Tensor, steps: int, height: int, width: int, *, smallest: int = 1) -> Tensor:
    """The side of each row's square after ``step`` (B,) of ``steps`` queries, int64 (B,)."""
    passed = torch.div(step * 10_000, steps + 1, rounding_mode="floor")
    halved = (passed[:, None] > torch.tensor(_HALVINGS, device=step.device)).sum(dim=1)
    share = _INITIAL_SHARE * 0.5 ** halved.double()
    return (share * height * width).sqrt().round().long().clamp_min(smallest).clamp_max(min(height, width))
