"""Perturbations for adversarial training: cheap inner maximisers, judged after training by the attacks proper."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
