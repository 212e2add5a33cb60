"""What an attack achieved, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from assay.attacks.ledger import Trace
from assay.attacks.network import Effort
from assay.attacks.success import predictions
from assay.attacks.threat import Threat


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
