"""What an attack achieved, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attacks.batch import Lanes, predictions
from assay.attacks.network import Effort
from assay.attacks.threat import Threat


@dataclass(eq=False)
class Ledger:
    """One row a sample, (N, …).

    ``adversarial`` is the clean image until an attack breaks the sample; ``broken_by`` the position of the method that
    did in ``methods``, −1 for none; ``steps`` the moves it took; ``distances`` float64, infinite while unbroken;
    ``closest`` the largest margin max_{k≠y} z_k − z_y met inside the ball, below 0 while unbroken.
    """

    adversarial: Tensor
    logits: Tensor
    broken: Tensor
    broken_by: Tensor
    steps: Tensor
    distances: Tensor
    closest: Tensor
    methods: list[str]

    @classmethod
    def open(cls, images: Tensor, clean_logits: Tensor) -> Ledger:
        """Nothing broken yet."""
        n, device = len(images), images.device
        return cls(
            adversarial=images.clone(),
            logits=clean_logits.clone(),
            broken=torch.zeros(n, dtype=torch.bool, device=device),
            broken_by=torch.full((n,), -1, device=device),
            steps=torch.full((n,), -1, device=device),
            distances=torch.full((n,), torch.inf, dtype=torch.float64, device=device),
            closest=torch.full((n,), -torch.inf, device=device),
            methods=[],
        )

    def enter(self, lanes: Lanes, *, logits: Tensor, distances: Tensor) -> None:
        """Write confirmed adversarial images down, where they are nearer than what is known."""
        nearer = distances < self.distances[lanes.index]
        found = lanes.take(nearer)
        rows = found.index
        self.adversarial[rows] = found.candidate
        self.logits[rows] = logits[nearer]
        self.distances[rows] = distances[nearer]
        self.broken[rows] = True
        self.broken_by[rows] = len(self.methods) - 1
        self.steps[rows] = found.step

    def note_margin(self, lanes: Lanes, reached: Tensor) -> None:
        """Remember how near to the boundary each row has come: margins (B,)."""
        self.closest[lanes.index] = torch.maximum(self.closest[lanes.index], reached)

    def forget(self, rows: Tensor, images: Tensor, clean_logits: Tensor) -> None:
        """Take back the images of ``rows`` (bool (N,)), but not the distance at which one was found."""
        self.adversarial[rows] = images[rows]
        self.logits[rows] = clean_logits[rows].to(self.logits)
        self.broken[rows] = False
        self.broken_by[rows] = -1
        self.steps[rows] = -1


@dataclass(eq=False)
class Trace:
    """Cross-entropy, and whether the model was right, of every sample after every step: (N, steps + 1).

    Column 0 is the clean image. A sample that leaves keeps its last values, and one that was never attacked its first.
    """

    losses: Tensor
    right: Tensor

    @classmethod
    def open(cls, clean_logits: Tensor, labels: Tensor, *, steps: int) -> Trace:
        """Every column as if nothing happened."""
        losses = F.cross_entropy(clean_logits, labels, reduction="none")
        right = predictions(clean_logits) == labels
        return cls(losses[:, None].repeat(1, steps + 1), right[:, None].repeat(1, steps + 1))

    def note(self, lanes: Lanes, logits: Tensor) -> None:
        """Write what the model said, from this step to the end."""
        losses = F.cross_entropy(logits, lanes.labels, reduction="none")
        right = predictions(logits) == lanes.labels
        columns = torch.arange(self.losses.shape[1], device=losses.device)
        # The start of a random start is no step: it counts from step 1 on, until step 1 itself is known.
        later = columns[None, :] >= lanes.step.clamp_min(1)[:, None]
        self.losses[lanes.index] = torch.where(later, losses[:, None], self.losses[lanes.index])
        self.right[lanes.index] = torch.where(later, right[:, None], self.right[lanes.index])


@dataclass(frozen=True, eq=False)
class Outcome:
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
    trace: Trace | None
    targets: Tensor | None
    effort: Effort
    precision: Literal["float32", "bfloat16"]
    notes: tuple[str, ...]
    seconds: float

    @property
    def clean_right(self) -> Tensor:
        """bool (N,): right before the attack."""
        return predictions(self.clean_logits) == self.labels

    @property
    def robust(self) -> Tensor:
        """bool (N,): right before the attack and after it; if that was targeted, only the target counts as broken."""
        return predictions(self.logits) == self.labels if self.targets is None else self.clean_right & ~self.broken
