"""Perturbations for adversarial training: cheap inner maximisers, and a monitor for catastrophic overfitting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import random_sample
from assay.errors import DivergedError
from assay.models.calls import calling, refusing
from assay.models.outputs import read_outputs
from assay.runtime import device_of, dtype_of, generator
from assay.training.metrics import Stopwatch
from assay.training.sections import AdversaryOptions, NFGSMAdversary, Nothing, PGDAdversary
from assay.training.step import Perturb

WATCH_STREAM = 0x3A7C


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
    with torch.enable_grad(), refusing(model, images.shape, expected="a gradient with respect to the images"):
        logits = read_outputs(model(images), n=len(images)).logits
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits.float(), labels, reduction="sum"), images)
    with torch.no_grad():
        for buffer, former in buffers:
            buffer.copy_(former)
    return gradient


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
    model: nn.Module, train: ImageDataset, *, options: NFGSMAdversary | PGDAdversary, seed: int
) -> OverfittingWatch:
    """Attack ``options.watch`` training images, drawn by ``seed``, with FGSM and with 10-step PGD of step ε/4."""
    epsilon, correct = options.epsilon, [0, 0]
    chosen = random_sample(train, options.watch, key=(seed, WATCH_STREAM))
    device, dtype = device_of(model), dtype_of(model)
    with calling(model, to_unit_range(chosen.images[:2]), classes=chosen.classes) as network:
        torch.manual_seed(generator(seed).initial_seed())
        for batch in chosen.batches(128):
            images, labels = to_unit_range(batch.images.to(device), dtype), batch.labels.to(device)
            fgsm = images.add(input_gradient(model, images, labels).sign_(), alpha=epsilon).clamp_(0, 1)
            stepped = pgd(model, images, labels, epsilon=epsilon, step_size=epsilon / 4, steps=10)
            with torch.no_grad():
                for i, adversarial in enumerate((fgsm, stepped)):
                    correct[i] += int((network(adversarial).argmax(dim=1) == labels).sum())
    return OverfittingWatch(correct[0] / len(chosen), correct[1] / len(chosen), len(chosen))


@dataclass(frozen=True, eq=False)
class GuardedAdversary:
    """A recipe's perturbation, monitored for catastrophic overfitting after every epoch.

    Nothing is perturbed where the recipe has no adversary, and nothing monitored with ``watch`` = 0. ``own`` is a
    caller's perturbation instead of the recipe's; it is not monitored.
    """

    options: AdversaryOptions
    train: ImageDataset
    seed: int
    own: Perturb | None = None

    def perturb(self, *, fallen_back: bool, clock: Stopwatch) -> Perturb | None:
        """The perturbation for the next step: the recipe's, or PGD of a few steps once that has failed."""
        options = self.options
        perturb: Perturb
        if self.own is not None:
            perturb = self.own
        elif isinstance(options, Nothing):
            return None
        elif fallen_back:
            steps = options.fallback_steps
            perturb = partial(pgd, epsilon=options.epsilon, step_size=1.25 * options.epsilon / steps, steps=steps)
        elif isinstance(options, NFGSMAdversary):
            perturb = partial(n_fgsm, epsilon=options.epsilon, step_size=options.step_size, noise=options.noise)
        else:
            perturb = partial(pgd, epsilon=options.epsilon, step_size=options.step_size, steps=options.steps)
        return clock.timed("adversary", perturb)

    def watch(self, model: nn.Module, *, epoch: int) -> tuple[OverfittingWatch | None, bool]:
        """The accuracies under FGSM and PGD, where they are monitored, and whether to go on with the fallback.

        Raises :class:`DivergedError` for catastrophic overfitting where the recipe has no fallback.
        """
        options = self.options
        if isinstance(options, Nothing) or options.watch == 0 or self.own is not None:
            return None, False
        accuracies = watch_overfitting(model, self.train, options=options, seed=self.seed)
        failed = accuracies.gap > options.gap
        if failed and options.fallback_steps == 0:
            raise DivergedError(
                f"epoch {epoch + 1}: catastrophic overfitting: {accuracies.fgsm_accuracy:.0%} accurate under one step, "
                f"{accuracies.pgd_accuracy:.0%} under ten small ones; more noise, a smaller step or PGD may help"
            )
        return accuracies, failed
