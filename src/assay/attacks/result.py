"""What an attack found, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attacks.batch import ActiveBatch, predictions
from assay.attacks.network import QueryCounts
from assay.attacks.threat import Threat


@dataclass(eq=False)
class BestSoFar:
    """The nearest verified adversarial image of every sample, (N, …)."""

    adversarial: Tensor  # the clean image until the sample is broken
    logits: Tensor  # of the original model on that image
    broken: Tensor  # bool (N,)
    broken_by: Tensor  # int64 (N,), the position in ``methods`` of the method that broke it; −1 for none
    steps: Tensor  # int64 (N,), the updates it took; −1 for none
    distances: Tensor  # float64 (N,), infinite while unbroken
    best_margin: Tensor  # (N,), the largest margin max_{k≠y} z_k − z_y met inside the ball; below 0 while unbroken
    methods: list[str]  # the names of the methods so far

    @classmethod
    def start(cls, images: Tensor, clean_logits: Tensor) -> BestSoFar:
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

    def update(self, batch: ActiveBatch, *, logits: Tensor, distances: Tensor) -> None:
        """Keep verified adversarial images where they are nearer than the ones known."""
        nearer = distances < self.distances[batch.index]
        improved = batch.take(nearer)
        rows = improved.index
        self.adversarial[rows] = improved.iterate
        self.logits[rows] = logits[nearer]
        self.distances[rows] = distances[nearer]
        self.broken[rows] = True
        self.broken_by[rows] = len(self.methods) - 1
        self.steps[rows] = improved.step

    def discard(self, rows: Tensor, images: Tensor, clean_logits: Tensor) -> None:
        """Take back the images of ``rows`` (bool (N,)), but not the distance at which one was found."""
        self.adversarial[rows] = images[rows]
        self.logits[rows] = clean_logits[rows].to(self.logits)
        self.broken[rows] = False
        self.broken_by[rows] = -1
        self.steps[rows] = -1


@dataclass(eq=False)
class StepTrace:
    """Cross-entropy and correctness of every sample after every step: (N, steps + 1).

    Column 0 is the clean image. A sample that leaves keeps its last values, and one that was never attacked its first.
    """

    losses: Tensor
    correct: Tensor

    @classmethod
    def start(cls, clean_logits: Tensor, labels: Tensor, *, steps: int) -> StepTrace:
        """Every column as on the clean image."""
        losses = F.cross_entropy(clean_logits, labels, reduction="none")
        correct = predictions(clean_logits) == labels
        return cls(losses[:, None].repeat(1, steps + 1), correct[:, None].repeat(1, steps + 1))

    def record(self, batch: ActiveBatch, logits: Tensor) -> None:
        """Write loss and correctness from this step to the end."""
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        correct = predictions(logits) == batch.labels
        columns = torch.arange(self.losses.shape[1], device=losses.device)
        # The start of a random start is no step: it counts from step 1 on, until step 1 itself is known.
        later = columns[None, :] >= batch.step.clamp_min(1)[:, None]
        self.losses[batch.index] = torch.where(later, losses[:, None], self.losses[batch.index])
        self.correct[batch.index] = torch.where(later, correct[:, None], self.correct[batch.index])


@dataclass(frozen=True, eq=False)
class AttackOutcome:
    """What an attack found, sample by sample, without the images; tensors are on the CPU.

    Attributes:
        threat: norm, ε and pixel bounds of the attack.
        labels: int64 (N,).
        broken: bool (N,), correct before and wrong after the attack, verified by the original model.
        broken_by: int64 (N,), the position in ``methods`` of the method that broke it; −1 for none.
        steps: int64 (N,), updates that led to the image; −1 for none.
        distances: float64 (N,), in the threat's norm; infinite where no adversarial image was found.
        clean_logits: float32 (N, K).
        logits: float32 (N, K), of the original model on the images after the attack.
        methods: names of the methods in the order they ran.
        trace: loss and correctness after each step of the first method; None for a search too long to trace.
        target_classes: int64 (N,), of a targeted attack.
        counts: forward and backward passes, and faults met on the way.
        precision: of the search.
        notes: what a reader should know about how the attack ran.
        seconds: wall-clock time.
    """

    threat: Threat
    labels: Tensor
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
        """bool (N,): correct before the attack."""
        return predictions(self.clean_logits) == self.labels

    @property
    def robust(self) -> Tensor:
        """bool (N,): correct after the attack; where that was targeted, correct before it and not broken."""
        if self.target_classes is None:
            return predictions(self.logits) == self.labels
        return self.clean_correct & ~self.broken


@dataclass(frozen=True, eq=False, kw_only=True)
class AttackResult(AttackOutcome):
    """What :func:`assay.attack` found, sample by sample; tensors are on the CPU.

    Attributes:
        adversarial: float32 (N, C, H, W), the adversarial image of a broken sample, else the clean one; for attacks
            that keep their last step, that step's image.
        threat: norm, ε and pixel bounds of the attack.
        labels: int64 (N,).
        broken: bool (N,), correct before and wrong after the attack, verified by the original model.
        broken_by: int64 (N,), the position in ``methods`` of the method that broke it; −1 for none.
        steps: int64 (N,), updates that led to the image; −1 for none.
        distances: float64 (N,), in the threat's norm; infinite where no adversarial image was found.
        clean_logits: float32 (N, K).
        logits: float32 (N, K), of the original model on ``adversarial``.
        methods: names of the methods in the order they ran.
        trace: loss and correctness after each step of the first method; None for a search too long to trace.
        target_classes: int64 (N,), of a targeted attack.
        counts: forward and backward passes, and faults met on the way.
        precision: of the search.
        notes: what a reader should know about how the attack ran.
        seconds: wall-clock time.

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> images, labels = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64)
        >>> result = assay.attack(model, images, labels, attack="fgsm", epsilon=0.1)
        >>> result.adversarial.shape, bool((result.robust <= result.clean_correct).all())
        (torch.Size([8, 1, 4, 4]), True)
    """

    adversarial: Tensor


def join_outcomes(parts: Sequence[AttackOutcome]) -> AttackOutcome:
    """The outcomes of the same attack on several sets of samples, one after the other, as that on all of them."""
    return AttackOutcome(**_joined(parts))


def join_results(parts: Sequence[AttackResult]) -> AttackResult:
    """:func:`join_outcomes` with the images; the only result itself where there is one."""
    if len(parts) == 1:
        return parts[0]
    return AttackResult(**_joined(parts), adversarial=torch.cat([part.adversarial for part in parts]))


def _joined(parts: Sequence[AttackOutcome]) -> dict[str, Any]:
    first = parts[0]
    traces = [part.trace for part in parts if part.trace is not None]
    counts = QueryCounts()
    for field in fields(QueryCounts):
        values = [getattr(part.counts, field.name) for part in parts]
        setattr(counts, field.name, all(values) if isinstance(values[0], bool) else sum(values))
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in _PER_SAMPLE}
    targets = [part.target_classes for part in parts if part.target_classes is not None]
    return {
        **joined,
        "threat": max((part.threat for part in parts), key=lambda threat: threat.epsilon),
        "methods": max((part.methods for part in parts), key=len),  # the others begin alike, and stopped before
        "trace": StepTrace(torch.cat([t.losses for t in traces]), torch.cat([t.correct for t in traces]))
        if len(traces) == len(parts)
        else None,
        "target_classes": None if first.target_classes is None else torch.cat(targets),
        "counts": counts,
        "precision": "bfloat16" if any(part.precision == "bfloat16" for part in parts) else "float32",
        "notes": tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        "seconds": sum(part.seconds for part in parts),
    }


_PER_SAMPLE = ("labels", "broken", "broken_by", "steps", "distances", "clean_logits", "logits")
