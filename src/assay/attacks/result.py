"""What an attack achieved, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attacks.batch import ActiveBatch, predictions
from assay.attacks.network import QueryCounts
from assay.attacks.threat import Threat


@dataclass(eq=False)
class BestSoFar:
    """One row a sample, (N, …).

    ``adversarial`` is the clean image until an attack breaks the sample; ``broken_by`` the position of the method that
    did in ``methods``, −1 for none; ``steps`` the moves it took; ``distances`` float64, infinite while unbroken;
    ``best_margin`` the largest margin max_{k≠y} z_k − z_y met inside the ball, below 0 while unbroken.
    """

    adversarial: Tensor
    logits: Tensor
    broken: Tensor
    broken_by: Tensor
    steps: Tensor
    distances: Tensor
    best_margin: Tensor
    methods: list[str]

    @classmethod
    def open(cls, images: Tensor, clean_logits: Tensor) -> BestSoFar:
        """Nothing broken yet."""
        n, device = len(images), images.device
        return cls(
            adversarial=images.clone(),
            logits=clean_logits.clone(),
            broken=torch.zeros(n, dtype=torch.bool, device=device),
            broken_by=torch.full((n,), -1, device=device),
            steps=torch.full((n,), -1, device=device),
            distances=torch.full((n,), torch.inf, dtype=torch.float64, device=device),
            best_margin=torch.full((n,), -torch.inf, device=device),
            methods=[],
        )

    def enter(self, batch: ActiveBatch, *, logits: Tensor, distances: Tensor) -> None:
        """Write confirmed adversarial images down, where they are nearer than what is known."""
        nearer = distances < self.distances[batch.index]
        found = batch.take(nearer)
        rows = found.index
        self.adversarial[rows] = found.iterate
        self.logits[rows] = logits[nearer]
        self.distances[rows] = distances[nearer]
        self.broken[rows] = True
        self.broken_by[rows] = len(self.methods) - 1
        self.steps[rows] = found.step

    def update_margins(self, batch: ActiveBatch, reached: Tensor) -> None:
        """Remember how near to the boundary each row has come: margins (B,)."""
        self.best_margin[batch.index] = torch.maximum(self.best_margin[batch.index], reached)

    def forget(self, rows: Tensor, images: Tensor, clean_logits: Tensor) -> None:
        """Take back the images of ``rows`` (bool (N,)), but not the distance at which one was found."""
        self.adversarial[rows] = images[rows]
        self.logits[rows] = clean_logits[rows].to(self.logits)
        self.broken[rows] = False
        self.broken_by[rows] = -1
        self.steps[rows] = -1


@dataclass(eq=False)
class StepTrace:
    """Cross-entropy, and whether the model was right, of every sample after every step: (N, steps + 1).

    Column 0 is the clean image. A sample that leaves keeps its last values, and one that was never attacked its first.
    """

    losses: Tensor
    correct: Tensor

    @classmethod
    def open(cls, clean_logits: Tensor, labels: Tensor, *, steps: int) -> StepTrace:
        """Every column as if nothing happened."""
        losses = F.cross_entropy(clean_logits, labels, reduction="none")
        correct = predictions(clean_logits) == labels
        return cls(losses[:, None].repeat(1, steps + 1), correct[:, None].repeat(1, steps + 1))

    def note(self, batch: ActiveBatch, logits: Tensor) -> None:
        """Write what the model said, from this step to the end."""
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        correct = predictions(logits) == batch.labels
        columns = torch.arange(self.losses.shape[1], device=losses.device)
        # The start of a random start is no step: it counts from step 1 on, until step 1 itself is known.
        later = columns[None, :] >= batch.step.clamp_min(1)[:, None]
        self.losses[batch.index] = torch.where(later, losses[:, None], self.losses[batch.index])
        self.correct[batch.index] = torch.where(later, correct[:, None], self.correct[batch.index])


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack achieved, sample by sample; tensors are on the CPU.

    ``adversarial`` float32 (N, C, H, W): the adversarial image of a broken sample, else the clean one (for attacks
    that keep their last step, that step's image). ``broken`` bool (N,): right before and wrong after, confirmed.
    ``broken_by`` int64 (N,) indexes ``methods``, −1 for none. ``steps`` int64 (N,): moves made, −1 for none.
    ``distances`` float64 (N,) in the threat's norm, infinite where nothing was found. ``clean_logits`` and
    ``logits`` float32 (N, K). ``trace`` holds loss and correctness after each step of the first method.
    ``precision`` is what the search multiplied in.
    """

    threat: Threat
    labels: Tensor
    adversarial: Tensor
    broken: Tensor
    broken_by: Tensor
    steps: Tensor
    distances: Tensor
    clean_logits: Tensor
    logits: Tensor
    methods: tuple[str, ...]
    trace: StepTrace | None
    target_classes: Tensor | None
    counts: QueryCounts
    precision: Literal["float32", "bfloat16"]
    notes: tuple[str, ...]
    seconds: float

    @property
    def clean_correct(self) -> Tensor:
        """bool (N,): right before the attack."""
        return predictions(self.clean_logits) == self.labels

    @property
    def robust(self) -> Tensor:
        """bool (N,): right before the attack and after it; if that was targeted, only the target counts as broken."""
        return (
            predictions(self.logits) == self.labels
            if self.target_classes is None
            else self.clean_correct & ~self.broken
        )
