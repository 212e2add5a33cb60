"""A layer in factors: a chain of thinner layers, fitted by least squares to the layer's outputs on its real inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.factorized import Kind, LayerFactors, chain_for

DAMPING = 0.03  # of the mean of a metric's diagonal: it is estimated from few images
PRIOR = 0.01  # of d/n: how strongly a map fitted to few samples is held near its prior
RIDGE = 1e-6  # of the mean variance: inputs that never vary do not determine their weights


@dataclass(frozen=True, eq=False)
class Moments:
    """Over n samples of x (d,), y (o,): means, C = cov(x) (d, d), S = cov(y, x) (o, d), cov(y) (o, o); float64."""

    mean_x: Tensor
    mean_y: Tensor
    cov_x: Tensor
    cov_yx: Tensor
    cov_y: Tensor
    n: int


@dataclass(frozen=True, eq=False)
class RankCurve:
    """All ranks at once: y ≈ P_r Q_r M (x − x̄) + ȳ, with what each leaves unexplained.

    ``outer`` P (o, o) and ``inner`` Q (o, o) = P⁻¹, of which rank r takes r columns and rows; ``map`` M (o, d);
    ``errors[r]`` = E‖y − y′‖²_F at rank r, for r = 0 … o; ``total`` = E‖y − ȳ‖²_F.
    """

    outer: Tensor
    inner: Tensor
    map: Tensor
    errors: Tensor
    total: float
    moments: Moments

    def factors(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """W₁ (r, d), W₂ (o, r) and the bias (o,) of y ≈ W₂W₁x + b; the scale is shared evenly between W₁ and W₂."""
        outer, inner = self.outer[:, :rank], self.inner[:rank] @ self.map
        bias = self.moments.mean_y - outer @ (inner @ self.moments.mean_x)
        sizes = torch.linalg.vector_norm(inner, dim=1) / torch.linalg.vector_norm(outer, dim=0).clamp_min(1e-12)
        scale = sizes.clamp_min(1e-12).sqrt()
        return inner / scale[:, None], outer * scale, bias


def best_maps(moments: Moments, metric: Tensor | None = None, prior: Tensor | None = None) -> RankCurve:
    """Minimise E‖y − W′x − b‖²_F over W′ of each rank r: W′ = R⁻¹U_rU_rᵀRM, M = S C⁻¹, where ‖e‖²_F = eᵀFe, F = RᵀR.

    ``prior`` P (o, d) is a map that is nearly right: then M = P + (S − PC)(C + λI)⁻¹, which stays near P where the n
    samples are few for d inputs. U_r are the leading eigenvectors of R M C Mᵀ Rᵀ. ``metric`` F (o, o) weights errors
    of y by direction; None: all alike. Where y = Wx and F = I this is W′ = U_rU_rᵀW with
    U_r from W C Wᵀ, and its error is the sum of the eigenvalues left out.
    Reference: reduced-rank regression, Izenman (1975); for layers Zhang et al., *Accelerating very deep convolutional
    networks* (2015), section 3.1.
    """
    o, d = moments.cov_yx.shape
    mean_variance = float(moments.cov_x.diagonal().mean()) or 1.0
    ridge = RIDGE if prior is None else max(RIDGE, PRIOR * d / moments.n)
    damped = moments.cov_x + ridge * mean_variance * torch.eye(d, dtype=torch.float64)
    start = torch.zeros(o, d, dtype=torch.float64) if prior is None else prior.cpu().double()
    full = start + torch.linalg.solve(damped, (moments.cov_yx - start @ moments.cov_x).T).T
    root = torch.eye(o, dtype=torch.float64) if metric is None else root_of(metric)
    explained = root @ full @ moments.cov_x @ full.T @ root.T
    values, vectors = torch.linalg.eigh((explained + explained.T) / 2)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    total = max(0.0, float(((root @ moments.cov_y) * root).sum()))
    # E‖y − QMx‖² = E‖y‖² − 2⟨Q, MSᵀ⟩ + ⟨Q, MCMᵀ⟩ for the projections Q of M's outputs
    gained = 2 * ((vectors.T @ root @ moments.cov_yx) * (vectors.T @ root @ full)).sum(1) - values
    captured = torch.cat([torch.zeros(1, dtype=torch.float64), gained.cumsum(0)])
    outer = torch.linalg.solve_triangular(root, vectors, upper=True)
    return RankCurve(outer, vectors.T @ root, full, (total - captured).clamp_min(0), total, moments)


def root_of(metric: Tensor) -> Tensor:
    """R (o, o), upper triangular, with RᵀR = F + δI; the damping δ bounds the condition of an estimated metric."""
    metric = metric.cpu().double()
    floor = DAMPING * float(metric.diagonal().mean()) + 1e-30
    root: Tensor = torch.linalg.cholesky(metric + floor * torch.eye(len(metric), dtype=torch.float64), upper=True)
    return root


CHUNK = 4_000_000  # numbers in one batch of patches


@dataclass(frozen=True, eq=False)
class Activations:
    """Inputs ``x`` (N, …) of a layer and the outputs ``y`` (N, …) to fit, on the calibration images."""

    x: Tensor
    y: Tensor


def can_factorize(layer: nn.Module) -> bool:
    """Linear layers, and convolutions in two dimensions without groups and with symmetric zero padding."""
    if isinstance(layer, nn.Linear):
        return min(layer.weight.shape) > 2
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.padding_mode != "zeros":
        return False
    odd = all((size - 1) * dilation % 2 == 0 for size, dilation in zip(layer.kernel_size, layer.dilation, strict=True))
    return (odd or layer.padding != "same") and min(layer.in_channels, layer.out_channels) > 2


def rank_curve(
    layer: nn.Module, activations: Activations, metric: Tensor | None = None, *, trained: bool = True
) -> RankCurve:
    """The best maps of every rank from patches of x to y: kinds ``linear`` and ``channel``.

    ``trained``: the layer's weight is the prior of the map; else only its geometry is used.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return best_maps(measure_moments(layer, activations), metric, weight.detach().flatten(1) if trained else None)


def fit_chain(
    layer: nn.Module, factors: LayerFactors, activations: Activations, metric: Tensor | None = None
) -> tuple[nn.Sequential, float]:
    """The chain with weights, and its E‖y − y′‖² per position on ``activations``, in ``metric`` (out, out) or plain.

    The last maps are least-squares fits to y given their own inputs, which compensates in part for the errors of
    earlier layers and of the first factor.
    """
    chain = chain_for(layer, factors)
    with torch.no_grad():
        if factors.kind in {"linear", "channel"}:
            error = _set_pair(chain[0], chain[1], rank_curve(layer, activations, metric), factors.rank)
        else:
            assert isinstance(layer, nn.Conv2d)
            first = chain[0]
            assert isinstance(first, nn.Conv2d)
            _set_projection(first, layer, activations.x, metric, vertical=factors.kind == "spatial")
            x = torch.cat([first(part) for part in torch.split(activations.x, 64)])
            curve = rank_curve(chain[1], Activations(x, activations.y), metric, trained=False)
            if factors.kind == "tucker":
                error = _set_pair(chain[1], chain[2], curve, factors.rank)
            else:
                _fill(chain[1], curve.map, curve.moments.mean_y - curve.map @ curve.moments.mean_x)
                error = float(curve.errors[-1])
        balance(chain)
    return chain.eval(), error


@torch.no_grad()
def balance(chain: nn.Sequential) -> None:
    """Give the two weights at each channel between neighbours equal norms; the chain computes the same map.

    Of all the factors of one map (the gauge freedom AG, G⁻¹B) these have the least sharp loss, so that training can
    go on from them: scales (c, 1/c) multiply its largest curvature by about c² + c⁻².
    """
    weights = [layer.weight for layer in chain if isinstance(layer, nn.Linear | nn.Conv2d)]
    for first, second in pairwise(weights):
        made, read = first.flatten(1), second.transpose(0, 1).flatten(1)
        norms = [torch.linalg.vector_norm(side.cpu().double(), dim=1).clamp_min(1e-30) for side in (made, read)]
        scale = (norms[1] / norms[0]).sqrt().to(made.dtype).to(made.device)
        shape = (-1, *[1] * (first.ndim - 1))
        first.mul_(scale.reshape(shape))
        second.div_(scale.reshape(1, *shape[:-1]))


def truncate_weights(layer: nn.Module, factors: LayerFactors) -> nn.Sequential:
    """The chain without data: the truncated SVD of the weight as a matrix (out, in·k²)."""
    chain = chain_for(layer, factors)
    first, second = chain
    with torch.no_grad():
        weight = layer.weight.detach().cpu().double().flatten(1)  # type: ignore[operator]
        left, sigma, right = torch.linalg.svd(weight, full_matrices=False)
        root = sigma[: factors.rank].sqrt()
        _fill(first, root[:, None] * right[: factors.rank], None)
        bias = layer.bias if layer.bias is not None else torch.zeros(len(weight))
        _fill(second, left[:, : factors.rank] * root, bias.detach().cpu().double())  # type: ignore[operator]
    return chain.eval()


def compose(chain: nn.Sequential, kind: Kind) -> Tensor:
    """The single weight equal to a chain away from the borders, as a matrix (out, in·kh·kw), float64."""
    weights = [layer.weight.detach().cpu().double() for layer in chain]  # type: ignore[operator]
    if kind == "linear":
        return weights[1] @ weights[0]
    if kind == "channel":
        return torch.einsum("or,rchw->ochw", weights[1].flatten(1), weights[0]).flatten(1)
    if kind == "spatial":
        return torch.einsum("orw,rch->ochw", weights[1].squeeze(2), weights[0].squeeze(3)).flatten(1)
    inner, core, outer = weights
    return torch.einsum("or,rshw,sc->ochw", outer.flatten(1), core, inner.flatten(1)).flatten(1)


def measure_moments(layer: nn.Module, activations: Activations) -> Moments:
    """Moments of patches of x, as ``layer`` sees them, and y at the same positions.

    Products are taken in float32 over a batch, about the first batch's mean as large means would cost them digits;
    sums in float64.
    """
    sums: list[Tensor] = []
    n = 0
    for x, y in _patches(layer, activations):
        if not sums:
            shift_x, shift_y = x.mean(0), y.mean(0)
        x, y = x - shift_x, y - shift_y
        parts = [*(each.cpu().double().sum(0) for each in (x, y))]
        parts += [(a.T @ b).cpu().double() for a, b in ((x, x), (y, x), (y, y))]  # not every device has float64
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
        n += len(x)
    mx, my, xx, yx, yy = (total / n for total in sums)
    return Moments(
        mean_x=mx + shift_x.cpu().double(),
        mean_y=my + shift_y.cpu().double(),
        cov_x=xx - torch.outer(mx, mx),
        cov_yx=yx - torch.outer(my, mx),
        cov_y=yy - torch.outer(my, my),
        n=n,
    )


def _patches(layer: nn.Module, activations: Activations) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(layer, nn.Linear):
        yield activations.x.reshape(-1, layer.in_features), activations.y.reshape(-1, activations.y.shape[-1])
        return
    assert isinstance(layer, nn.Conv2d)
    size = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    positions = activations.y.shape[2] * activations.y.shape[3]
    count = max(1, CHUNK // (size * positions))
    for x, y in zip(torch.split(activations.x, count), torch.split(activations.y, count), strict=True):
        unfolded = F.unfold(x, layer.kernel_size, layer.dilation, int_padding(layer), layer.stride)
        # (b, d, positions) -> (b·positions, d)
        yield unfolded.transpose(1, 2).reshape(-1, size), y.flatten(2).transpose(1, 2).reshape(-1, y.shape[1])


def int_padding(layer: nn.Conv2d) -> tuple[int, int]:
    """The zero padding on each side, with ``same`` and ``valid`` spelled out."""
    if layer.padding == "valid":
        return (0, 0)
    if isinstance(layer.padding, str):
        high, wide = ((size - 1) * d // 2 for size, d in zip(layer.kernel_size, layer.dilation, strict=True))
        return (high, wide)
    return (layer.padding[0], layer.padding[1])


def _set_projection(first: nn.Conv2d, layer: nn.Conv2d, x: Tensor, metric: Tensor | None, *, vertical: bool) -> None:
    """The r combinations of a column of inputs (of the channels at a pixel) that the layer's taps need most.

    With A the taps side by side, A = [W_1; W_2; …], and C the covariance of what they read: the leading directions of
    A C Aᵀ, taken through the small side: W₁ = wᵀLᵀAᵀA, C = LLᵀ, w the leading eigenvectors of LᵀAᵀAL.
    """
    weight = layer.weight.detach().cpu().double()  # (O, C, kh, kw)
    if metric is not None:
        weight = (root_of(metric) @ weight.flatten(1)).reshape(weight.shape)
    if vertical:
        taps = weight.permute(3, 0, 1, 2).reshape(-1, weight.shape[1] * weight.shape[2])  # (kw·O, C·kh)
        columns = F.unfold(x, (weight.shape[2], 1), first.dilation, int_padding(first), first.stride)
        inputs = columns.transpose(1, 2).reshape(-1, taps.shape[1])
    else:
        taps = weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[1])  # (kh·kw·O, C)
        inputs = x.movedim(1, -1).reshape(-1, taps.shape[1])
    inputs = inputs - inputs.mean(0)
    covariance = (inputs.T @ inputs).cpu().double() / len(inputs)
    damping = 1e-8 * float(covariance.diagonal().mean()) + 1e-30
    spread, axes = torch.linalg.eigh(covariance)  # fewer inputs than directions leave some at zero, up to rounding
    root = axes * (spread.clamp_min(0) + damping).sqrt()
    inner = taps.T @ taps
    values, vectors = torch.linalg.eigh(root.T @ inner @ root)
    top = vectors[:, -first.out_channels :].flip(1)
    rows = top.T @ root.T @ inner
    scale = values[-first.out_channels :].flip(0).clamp_min(1e-24).pow(0.25)  # evens the scale out between the factors
    _fill(first, rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-12) * scale[:, None], None)


def _set_pair(first: nn.Module, second: nn.Module, curve: RankCurve, rank: int) -> float:
    """Returns what the pair leaves unexplained."""
    inner, outer, bias = curve.factors(rank)
    _fill(first, inner, None)
    _fill(second, outer, bias)
    return float(curve.errors[min(rank, len(curve.errors) - 1)])


def _fill(layer: nn.Module, matrix: Tensor, bias: Tensor | None) -> None:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    layer.weight.copy_(matrix.reshape(layer.weight.shape))
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)
