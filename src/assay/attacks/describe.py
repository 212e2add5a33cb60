"""What an attack did, in the numbers a person asks for next: how visible, into which class, how fast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attacks.measure import RobustnessMeasurement
from assay.attacks.success import predictions
from assay.data.dataset import ImageDataset, to_unit_range
from assay.records.attack import AttackAnatomy, Transition

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_WINDOW = 7


def describe_attack(measurement: RobustnessMeasurement, dataset: ImageDataset) -> AttackAnatomy:
    """Loss quantiles after each step, class to class, and PSNR and SSIM of the images that broke.

    ``dataset`` is the one the attack ran on.
    """
    outcome, record = measurement.outcome, measurement.record
    rows = outcome.broken.nonzero()[:, 0]
    quantiles: tuple[tuple[float, ...], ...] = ()
    if outcome.trace is not None:
        levels = torch.tensor(QUANTILES, dtype=torch.float64)
        found = outcome.trace.losses.cpu().double().quantile(levels, dim=0)  # (Q, steps + 1)
        quantiles = tuple(tuple(row) for row in found.T.tolist())
    images = to_unit_range(dataset.images[rows])
    ratios, similarities = psnr(images, outcome.adversarial[rows]), ssim(images, outcome.adversarial[rows])
    return AttackAnatomy(
        attack=record.attack,
        norm=record.norm,
        epsilon=record.epsilon,
        broken=len(rows),
        quantile_levels=QUANTILES,
        loss_quantiles=quantiles,
        transitions=_transitions(outcome.labels[rows], predictions(outcome.logits)[rows], dataset.classes),
        median_psnr=float(ratios.median()) if len(rows) else None,
        median_ssim=float(similarities.median()) if len(rows) else None,
        lowest_ssim=float(similarities.min()) if len(rows) else None,
    )


def _transitions(labels: Tensor, after: Tensor, classes: tuple[str, ...]) -> tuple[Transition, ...]:
    """(from, to, count), the most frequent first."""
    finite = after >= 0
    pairs = labels[finite] * len(classes) + after[finite]
    counts = torch.bincount(pairs, minlength=len(classes) ** 2)
    order = counts.argsort(descending=True, stable=True)
    return tuple(
        Transition(before=classes[i // len(classes)], after=classes[i % len(classes)], count=int(counts[i]))
        for i in order[: int((counts > 0).sum())].tolist()
    )


def psnr(images: Tensor, changed: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image in [0, 1], −10·log₁₀ of the mean squared error; (B,)."""
    error = (images.double() - changed.double()).flatten(1).square().mean(dim=1)
    return -10.0 * error.clamp_min(torch.finfo(torch.float64).tiny).log10()


def ssim(images: Tensor, changed: Tensor) -> Tensor:
    """Structural similarity of each image in [0, 1], (B,): 1 is identical.

    Mean over channels and windows of (2μₓμᵧ + C₁)(2σₓᵧ + C₂) / ((μₓ² + μᵧ² + C₁)(σₓ² + σᵧ² + C₂)), C₁ = 0.01²,
    C₂ = 0.03², uniform windows of 7 pixels (fewer in a smaller picture) and unbiased variances. Wang et al. 2004.
    """
    side = min(_WINDOW, *images.shape[2:])
    side -= 1 - side % 2
    x, y = images.double(), changed.double()
    unbiased = side**2 / max(side**2 - 1, 1)

    def mean(values: Tensor) -> Tensor:
        pooled: Tensor = F.avg_pool2d(values, side, stride=1)
        return pooled

    mx, my = mean(x), mean(y)
    vx, vy = (mean(x * x) - mx * mx) * unbiased, (mean(y * y) - my * my) * unbiased
    cov = (mean(x * y) - mx * my) * unbiased
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    mean_similarity: Tensor = similarity.flatten(1).mean(dim=1)
    return mean_similarity
