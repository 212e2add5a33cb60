"""Perturbations for adversarial training: cheap inner maximisers, judged after training by the attacks proper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import DivergedError
from assay.runtime import device_of, dtype_of, generator, preserved
from assay.training.metrics import Stopwatch
from assay.training.objective import Perturb
from assay.training.recipes import AdversaryOptions


def build_adversary(options: AdversaryOptions) -> Perturb | None:
    """The perturbation a recipe asks for; None for none."""
    if options.name == "n-fgsm":
        return partial(n_fgsm, epsilon=options.epsilon, step_size=options.step_size, noise=options.noise)
    if options.name == "pgd":
        return partial(pgd, epsilon=options.epsilon, step_size=options.step_size, steps=options.steps)
    return None


def n_fgsm(
    model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, step_size: float, noise: float
) -> Tensor:
    """x + η + α·sign ∇ℓ(x + η), η ~ U(−kε, kε), not projected back onto the ball (de Jorge et al. 2022, N-FGSM).

    ``noise`` is k. Images (B, C, H, W) in [0, 1] stay there. One gradient, which the strong noise keeps from the
    collapse that single-step training is known for.
    """
    start = (images + torch.empty_like(images).uniform_(-noise * epsilon, noise * epsilon)).clamp_(0, 1)
    return start.add(input_gradient(model, start, labels).sign_(), alpha=step_size).clamp_(0, 1)


def pgd(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, step_size: float, steps: int) -> Tensor:
    """``steps`` signed gradient steps from a random start, each projected onto the L∞ ball (Madry et al. 2018)."""
    low, high = (images - epsilon).clamp_(0, 1), (images + epsilon).clamp_(0, 1)
    current = (images + torch.empty_like(images).uniform_(-epsilon, epsilon)).clamp_(0, 1)
    for _ in range(steps):
        stepped = current.add(input_gradient(model, current, labels).sign_(), alpha=step_size)
        current = stepped.clamp_(low, high)
    return current


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """∂ Σ cross-entropy / ∂ images, without touching the gradients of the parameters.

    The mode is left as it is (training), but running statistics are put back: they are to describe the images that
    the weights learn from.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(model(images).float(), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    with torch.no_grad():
        for buffer, former in buffers:
            buffer.copy_(former)
    return gradient


WATCH_STEPS = 10


@dataclass(frozen=True)
class OverfittingWatch:
    """Accuracy under one full step and under ten small ones, on the same ``n`` training images."""

    fgsm_accuracy: float
    pgd_accuracy: float
    n: int

    @property
    def gap(self) -> float:
        """How far the single step is behind: near 0 in health, near 1 once the network masks its gradient."""
        return self.fgsm_accuracy - self.pgd_accuracy


def watch_overfitting(
    model: nn.Module, train: ImageDataset, *, options: AdversaryOptions, seed: int
) -> OverfittingWatch:
    """Attack the first ``options.watch`` training images with FGSM and with 10-step PGD of step ε/4."""
    epsilon = options.epsilon
    chosen = train.subset(torch.arange(min(options.watch, len(train))))
    device, dtype = device_of(model), dtype_of(model)
    right = [0, 0]
    with preserved(model, training=False):
        torch.manual_seed(generator(seed).initial_seed())
        for batch in chosen.batches(128):
            images, labels = to_unit_range(batch.images.to(device), dtype), batch.labels.to(device)
            step = input_gradient(model, images, labels).sign_()
            attacked = (
                images.add(step, alpha=epsilon).clamp_(0, 1),
                pgd(model, images, labels, epsilon=epsilon, step_size=epsilon / 4, steps=WATCH_STEPS),
            )
            with torch.no_grad():
                for i, adversarial in enumerate(attacked):
                    right[i] += int((model(adversarial).argmax(dim=1) == labels).sum())
    n = len(chosen)
    return OverfittingWatch(right[0] / n, right[1] / n, n)


class GuardedAdversary:
    """A recipe's perturbation, watched for catastrophic overfitting after every epoch.

    Nothing is perturbed where the recipe has no adversary, and nothing watched with ``watch`` = 0. ``own`` is
    somebody's perturbation instead of the recipe's; it is not watched.
    """

    def __init__(
        self, options: AdversaryOptions, train: ImageDataset, *, seed: int, own: Perturb | None = None
    ) -> None:
        self._options = options
        self._train = train
        self._seed = seed
        self._own = own

    def perturb(self, *, fallen_back: bool, clock: Stopwatch) -> Perturb | None:
        """The perturbation for the next step: the recipe's, or PGD of a few steps once that has failed."""
        options, steps = self._options, self._options.fallback_steps
        if self._own is not None:
            chosen: Perturb | None = self._own
        elif fallen_back:
            chosen = partial(pgd, epsilon=options.epsilon, step_size=1.25 * options.epsilon / steps, steps=steps)
        else:
            chosen = build_adversary(options)
        return None if chosen is None else clock.timed("adversary", chosen)

    def watch(self, model: nn.Module, *, epoch: int) -> OverfittingWatch | None:
        """What the watch saw, if it is set. Raises :class:`DivergedError` where it is bad and there is no fallback."""
        options = self._options
        if options.name == "none" or options.watch == 0 or self._own is not None:
            return None
        seen = watch_overfitting(model, self._train, options=options, seed=self._seed)
        if seen.gap > options.gap and options.fallback_steps == 0:
            raise DivergedError(
                f"epoch {epoch + 1}: catastrophic overfitting: {seen.fgsm_accuracy:.0%} accurate under one step, "
                f"{seen.pgd_accuracy:.0%} under ten small ones; more noise, a smaller step or PGD may help"
            )
        return seen

    def has_failed(self, seen: OverfittingWatch | None) -> bool:
        """Is it time to go on with the fallback?"""
        return seen is not None and seen.gap > self._options.gap
