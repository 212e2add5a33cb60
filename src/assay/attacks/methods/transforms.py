"""The worst of the twelve image operations: rotations, shifts, exposure and the like, of bounded strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from assay.attacks import draws
from assay.attacks.batch import ActiveBatch, Method, ModelOutput, Samples, initial_fields
from assay.attacks.losses import AttackLoss, margin
from assay.attacks.options import AttackOptions, AttackPlan, register
from assay.attacks.threat import Threat
from assay.augment.operations import CODES
from assay.augment.plan import AugmentPlan, apply_plan

Search = Literal["grid", "random", "greedy"]

# Strengths that leave the object recognisable; shifts are shares of the side of the image.
STRENGTHS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "ShearX": (-0.3, -0.15, 0.15, 0.3),
        "ShearY": (-0.3, -0.15, 0.15, 0.3),
        "TranslateX": (-0.125, -0.0625, 0.0625, 0.125),
        "TranslateY": (-0.125, -0.0625, 0.0625, 0.125),
        "Rotate": (-30.0, -15.0, 15.0, 30.0),
        "Brightness": (0.5, 0.75, 1.25, 1.5),
        "Color": (0.0, 0.5, 1.5, 2.0),
        "Contrast": (0.5, 0.75, 1.25, 1.5),
        "Sharpness": (0.0, 0.5, 2.0, 5.0),
        "Posterize": (5.0, 4.0, 3.0),
        "Solarize": (224.0, 192.0),
        "Equalize": (0.0,),
    }
)
GRID = tuple((CODES[name], strength) for name, strengths in STRENGTHS.items() for strength in strengths)


@register
class Transforms(AttackOptions):
    """The worst of the twelve image operations, at strengths that leave the object recognisable; ε does not apply.

    Reference:
        Engstrom et al. 2019, arXiv:1712.02779 (worst-of-k).
    """

    name: ClassVar[str] = "transforms"
    constrained: ClassVar[bool] = False
    uses_epsilon: ClassVar[bool] = False
    search: Annotated[Search, Field(description="all on a grid, some at random, or compositions of the worst")] = "grid"
    draws: Annotated[int, Field(ge=1, description="operations drawn by search=random")] = 40
    depth: Annotated[int, Field(ge=1, le=4, description="operations composed by search=greedy")] = 2

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        method = partial(TransformsMethod, search=self.search, depth=self._depth)
        return AttackPlan((method(name=self.name, steps=self._tried - 1, seed=seed),))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        return (self._tried, None, 1)

    def without_effect(self) -> Mapping[str, str]:
        needed = {"draws": "random", "depth": "greedy"}
        return {field: f"search={search}" for field, search in needed.items() if self.search != search}

    @property
    def _depth(self) -> int:
        return self.depth if self.search == "greedy" else 1

    @property
    def _tried(self) -> int:
        return self.draws if self.search == "random" else self._depth * len(GRID)


@dataclass(eq=False)
class TransformsBatch(ActiveBatch):
    """``codes`` and ``magnitudes`` (B, S) of the operations being tried, and of the ``best`` so far with its margin."""

    codes: Tensor
    magnitudes: Tensor
    best_codes: Tensor
    best_magnitudes: Tensor
    best_loss: Tensor


@dataclass(frozen=True, kw_only=True)
class TransformsMethod(Method[TransformsBatch]):
    """Maximises the margin over operations; random strengths lie between the points of the grid."""

    loss: AttackLoss = margin
    stays_inside: bool = False
    takes_gradients: bool = False
    search: Search = "grid"
    depth: int = 1

    def begin(self, samples: Samples, threat: Threat) -> TransformsBatch:
        empty = torch.zeros(len(samples), self.depth, device=samples.index.device)
        batch = TransformsBatch(
            **initial_fields(samples, iterate=samples.images, gradient=False),
            codes=empty.to(torch.uint8),
            magnitudes=empty.double(),
            best_codes=empty.to(torch.uint8),
            best_magnitudes=empty.double(),
            best_loss=torch.full_like(samples.epsilon, -torch.inf),
        )
        return self._try(batch, threat)

    def advance(self, batch: TransformsBatch, output: ModelOutput, threat: Threat) -> TransformsBatch:
        better = output.losses > batch.best_loss
        batch.best_codes = torch.where(better[:, None], batch.codes, batch.best_codes)
        batch.best_magnitudes = torch.where(better[:, None], batch.magnitudes, batch.best_magnitudes)
        batch.best_loss = torch.where(better, output.losses, batch.best_loss)
        batch.step = batch.step + 1
        return self._try(batch, threat)

    def _try(self, batch: TransformsBatch, threat: Threat) -> TransformsBatch:
        grid = torch.tensor(GRID, dtype=torch.float64, device=batch.index.device)
        if self.search == "random":
            picked = draws.uniform(batch.ids, self.seed, 0x7A, batch.step, size=2)
            row, fraction = (picked[:, 0] * len(grid)).long(), picked[:, 1]
            (code, strength), (next_code, following) = grid[row].T, grid[(row + 1) % len(grid)].T
            # Uniform between this strength and the next of the same operation.
            strength = strength + fraction * (torch.where(next_code == code, following, strength) - strength)
            level = torch.zeros_like(batch.step)
        else:
            level = torch.div(batch.step, len(grid), rounding_mode="floor")
            code, strength = grid[batch.step % len(grid)].T
        height, width = batch.images.shape[2:]
        strength = torch.where(code == CODES["TranslateX"], (strength * width).round(), strength)
        strength = torch.where(code == CODES["TranslateY"], (strength * height).round(), strength)
        place = torch.arange(self.depth, device=level.device)
        here, before = place == level[:, None], place < level[:, None]
        batch.codes = torch.where(here, code[:, None].to(torch.uint8), torch.where(before, batch.best_codes, 0))
        batch.magnitudes = torch.where(here, strength[:, None], torch.where(before, batch.best_magnitudes, 0.0))
        low, high = threat.bounds
        bytes_ = ((batch.images - low) / (high - low) * 255).round().to(torch.uint8)
        places = torch.zeros(*batch.codes.shape, 2, dtype=torch.int32)
        changed = apply_plan(bytes_, AugmentPlan(batch.codes.cpu(), batch.magnitudes.cpu(), places))
        batch.iterate = changed.to(batch.images) / 255 * (high - low) + low
        return batch
