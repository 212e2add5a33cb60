"""Catastrophic overfitting: single-step training that has learnt to fool its own step (Wong et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import DivergedError
from assay.runtime import device_of, dtype_of, generator, preserved
from assay.training.adversaries import build_adversary, input_gradient, pgd
from assay.training.objective import Perturb
from assay.training.recipes import AdversaryOptions
from assay.training.stopwatch import Stopwatch

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
