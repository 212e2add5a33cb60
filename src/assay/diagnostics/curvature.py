"""Largest eigenvalues and trace of the Hessian, from Hessian-vector products alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.data.selection import evenly_spaced
from assay.diagnostics.batches import example, inputs, require_gradients
from assay.errors import ModelError
from assay.models.calls import calling, refusing
from assay.records.gradients import Curvature
from assay.runtime import generator

Product = Callable[[Tensor], Tensor]


@checked
def measure_curvature(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    n: int = 128,
    iterations: int = 30,
    top: int = 3,
    probes: int = 8,
    batch_size: int = 128,
    learning_rate: float | None = None,
    seed: int = 0,
) -> Curvature:
    """λ₁ ≥ … ≥ λ_top by Lanczos with full re-orthogonalisation, trace(H) by Hutchinson with Rademacher probes.

    H is the Hessian of the mean cross-entropy over ``n`` samples in evaluation mode; one Hessian-vector product costs
    about two backward passes. ``learning_rate`` is recorded beside the critical one, 2/λmax. The model is left as it
    was found. Raises :class:`ModelError` for a model whose loss has no second derivative.

    Reference: Pearlmutter 1994 (the product), Ghorbani, Krishnan & Xiao 2019 (Lanczos on networks), Hutchinson 1990.
    """
    data = evenly_spaced(dataset, n)
    with calling(model, example(data), classes=data.classes) as network, torch.enable_grad():
        require_gradients(model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ModelError("model", expected="parameters of floating point", got="none")

        def loss_of(x: Tensor, y: Tensor) -> Callable[[], Tensor]:
            return lambda: F.cross_entropy(network(x), y, reduction="sum") / (len(data) * times)

        batches, times = inputs(network, data, batch_size=batch_size)
        losses = [loss_of(x, y) for x, y in batches]
        product = hessian_product(losses, parameters)
        size = sum(p.numel() for p in parameters)
        dtype = torch.promote_types(parameters[0].dtype, torch.float32)  # half floats lose the small eigenvalues
        like, steps = parameters[0].new_empty(0, dtype=dtype), min(iterations, size)
        values, residual, used = lanczos(product, size, iterations=steps, seed=seed, like=like)
        trace, error = hutchinson(product, size, probes=probes, seed=seed, like=like)
    largest = values[:top]
    return Curvature(
        n=len(data),
        parameters=size,
        eigenvalues=tuple(largest),
        smallest=values[-1],
        residual=residual,
        iterations=used,
        trace=trace,
        trace_error=error,
        critical_learning_rate=2 / largest[0] if largest[0] > 0 else math.inf,
        learning_rate=learning_rate,
    )


def hessian_product(losses: list[Callable[[], Tensor]], parameters: list[nn.Parameter]) -> Product:
    """v -> Hv = ∇(∇L·v), v (P,), L the sum of ``losses``; parameters that L does not use contribute zeros."""

    def product(v: Tensor) -> Tensor:
        parts = torch.split(v, [p.numel() for p in parameters])
        pieces = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
        total = torch.zeros_like(v)
        for loss in losses:
            with refusing(parameters, expected="a loss that can be differentiated twice", where="model"):
                first = torch.autograd.grad(loss(), parameters, create_graph=True, allow_unused=True)
                pairs = [(g, d) for g, d in zip(first, pieces, strict=True) if g is not None and g.requires_grad]
                along = sum((g.to(d) * d).sum() for g, d in pairs)
                if not isinstance(along, Tensor):
                    continue  # a loss linear in every parameter
                second = torch.autograd.grad(along, parameters, allow_unused=True)
            flat = [torch.zeros_like(p) if h is None else h for h, p in zip(second, parameters, strict=True)]
            total += torch.cat([h.flatten().to(v) for h in flat])
        return total

    return product


def lanczos(product: Product, size: int, *, iterations: int, seed: int, like: Tensor) -> tuple[list[float], float, int]:
    """Ritz values in descending order, the residual norm of the largest, and the iterations used.

    The residual ‖Hv − λv‖₂ is computed, not taken from the recurrence, whose β_k·|y_k| leaves rounding out. Iteration
    ends early when an invariant subspace is found.
    """
    start = torch.randn(size, generator=generator(seed, 0x1A2C), dtype=torch.float64).to(like)
    basis = [start / start.norm()]
    alphas: list[float] = []
    betas: list[float] = []
    for k in range(iterations):
        w = product(basis[-1])
        alphas.append(float(w @ basis[-1]))
        for _ in range(2):  # twice is enough (Parlett): without it, copies of converged pairs return
            for v in basis:
                w = w - (w @ v) * v
        beta = float(w.norm())
        betas.append(beta)
        if beta < 1e-6 * max(1e-12, *(abs(a) for a in alphas)) or k + 1 == iterations:
            break
        basis.append(w / beta)
    k = len(alphas)
    T = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    for i, beta in enumerate(betas[: k - 1]):
        T[i, i + 1] = T[i + 1, i] = beta
    if not bool(T.isfinite().all()):
        return [math.nan], math.nan, k
    values, vectors = torch.linalg.eigh(T)
    ritz = sum(float(weight) * v for weight, v in zip(vectors[:, -1], basis, strict=False))
    assert isinstance(ritz, Tensor)
    return values.flip(0).tolist(), float((product(ritz) - float(values[-1]) * ritz).norm()), k


def hutchinson(product: Product, size: int, *, probes: int, seed: int, like: Tensor) -> tuple[float, float]:
    """Mean of vᵀHv over Rademacher v, and its standard error (NaN for a single probe)."""
    draws = generator(seed, 0x7ACE)
    quadratic = []
    for _ in range(probes):
        v = (torch.randint(0, 2, (size,), generator=draws) * 2 - 1).to(like)
        quadratic.append(float(v @ product(v)))
    values = torch.tensor(quadratic, dtype=torch.float64)
    return float(values.mean()), float(values.std() / math.sqrt(probes)) if probes > 1 else math.nan
