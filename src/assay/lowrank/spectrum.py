"""How redundant the layers of a model are: the singular values of every weight matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList

from assay.arguments import checked
from assay.errors import ModelError
from assay.records.compression import LayerSpectra, LayerSpectrum

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True, eq=False)
class WeightMatrix:
    """One weight as ``blocks`` (g, rows, columns): the diagonal blocks of its matrix, one for each group."""

    name: str
    type: str
    blocks: Tensor


@checked
def measure_spectra(model: nn.Module) -> LayerSpectra:
    """Singular values, condition number, effective rank and redundancy of every weight matrix of ``model``.

    A convolution (c_out, c_in/g, k, k) is the matrix (c_out, c_in·k²) that acts on patches, block-diagonal with one
    block for each of the g groups; linear, embedding, recurrent and attention weights are taken as they are, and any
    other parameter of two dimensions or more as (first, all the rest). A weight shared by several modules counts once,
    vectors and matrices of one row not at all. Computed in float64 on the weights' device.

    Args:
        model: Any module; it is not run.

    Returns:
        A spectrum for each weight matrix, in the order of the modules, and the share of all weights that
        factors with 99 % of the energy would save.

    Raises:
        ModelError: A weight is not finite, or not initialised yet.

    Example:
        >>> import assay, torch
        >>> spectra = assay.measure_spectra(torch.nn.Linear(8, 4))
        >>> [(layer.rows, layer.columns, len(layer.singular_values)) for layer in spectra.layers]
        [(4, 8, 4)]

    Reference:
        Roy & Vetterli, *The effective rank: a measure of effective dimensionality*, EUSIPCO 2007.
    """
    layers, stored, full = [], 0, 0
    for matrix in weight_matrices(model):
        sigmas = _singular_values(matrix)
        layers.append(_describe(matrix, sigmas))
        g, rows, columns = matrix.blocks.shape
        ranks = [rank_for_energy(s, 0.99) for s in sigmas]
        stored += sum(min(rows * columns, rank * (rows + columns)) for rank in ranks)
        full += g * rows * columns
    return LayerSpectra(layers=tuple(layers), redundancy=1 - stored / full if full else 0.0)


def weight_matrices(model: nn.Module) -> Iterator[WeightMatrix]:
    """Every weight of two rows or more, once, in the order of ``model.named_modules()``."""
    known: set[int] = set()
    for path, module in model.named_modules():
        if isinstance(module, (ParametrizationList, *_NORMS)):
            continue
        for name, weight in _own_weights(module):
            source = getattr(getattr(module, "parametrizations", {}), name, None)
            identity = id(source if source is not None else weight)
            if identity in known:
                continue
            known.add(identity)
            where = f"{path}.{name}".lstrip(".")
            _check_weight(where, weight)
            groups = module.groups if isinstance(module, _ConvNd) else 1
            # (c_out, c_in/g, k, k) -> (g, c_out/g, c_in/g·k²); a transposed convolution keeps c_in in front
            blocks = weight.detach().reshape(groups, weight.shape[0] // groups, -1)
            if weight.shape[0] >= 2:
                yield WeightMatrix(path if name == "weight" and path else where, type(module).__name__, blocks)


def rank_for_energy(singular_values: Tensor, energy: float) -> int:
    """The smallest r with Σ_{i≤r} σ_i² ≥ energy · Σ σ_i²; 0 for a zero matrix."""
    squares = singular_values.double().square()
    if float(squares.sum()) == 0:
        return 0
    shares = squares.cumsum(0) / squares.sum()
    return min(int((shares < energy - 1e-12).sum()) + 1, len(squares))


def effective_rank(singular_values: Tensor) -> float:
    """exp(−Σ p ln p), p = σ/Σσ (Roy & Vetterli, *The effective rank*, EUSIPCO 2007); 0 for a zero matrix."""
    full = float(singular_values.sum())
    if full == 0:
        return 0.0
    p = singular_values.double() / full
    return float(torch.special.entr(p).sum().exp())


def stable_rank(singular_values: Tensor) -> float:
    """‖W‖²_F / σ₁²; 0 for a zero matrix."""
    largest = float(singular_values.max()) if len(singular_values) else 0.0
    return float((singular_values.double() / largest).square().sum()) if largest else 0.0


def _own_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # a parametrised weight (weight norm, spectral norm) is what the layer computes with, not the parameters behind it
    for name in tuple(getattr(module, "parametrizations", {})):
        weight = getattr(module, name)
        if weight.ndim >= 2:
            yield name, weight
    for name, parameter in module.named_parameters(recurse=False):
        if isinstance(parameter, UninitializedParameter):
            where = f"{type(module).__name__}.{name}"
            raise ModelError(where, expected="an initialised weight", got="a lazy one: run one batch first")
        if parameter.ndim >= 2 and parameter.is_floating_point():
            yield name, parameter


def _check_weight(where: str, weight: Tensor) -> None:
    wrong = ~weight.detach().isfinite()
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        got = f"{float(weight.detach()[tuple(place)])} ({int(wrong.sum())} of {wrong.numel()})"
        raise ModelError(f"{where}{place}", expected="finite weights", got=got)


def _singular_values(matrix: WeightMatrix) -> Tensor:
    """float64 (g, min(rows, columns)), falling within each block.

    A float64 Gram matrix resolves σ down to 1e-8 σ₁, below what float32 weights can mean, and costs a tenth of an SVD.
    """
    blocks = matrix.blocks.double() if matrix.blocks.device.type != "mps" else matrix.blocks.cpu().double()
    if matrix.blocks.dtype == torch.float64:
        exact: Tensor = torch.linalg.svdvals(blocks)
        return exact
    small = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
    squares: Tensor = torch.linalg.eigvalsh(small @ small.mT)
    return squares.clamp_min(0).sqrt().flip(-1)


def _describe(matrix: WeightMatrix, sigmas: Tensor) -> LayerSpectrum:
    g, rows, columns = matrix.blocks.shape
    values = sigmas.flatten().sort(descending=True).values
    dtype = matrix.blocks.dtype
    floor = float(values[0]) * max(g * rows, g * columns) * torch.finfo(dtype).eps
    values = torch.where(values > floor, values, 0.0)  # below rounding: the convention of numpy's matrix_rank
    smallest = float(values[-1])
    return LayerSpectrum(
        name=matrix.name,
        type=matrix.type,
        rows=g * rows,
        columns=g * columns,
        singular_values=tuple(values.tolist()),
        stable_rank=stable_rank(values),
        effective_rank=effective_rank(values),
        rank_for_99=rank_for_energy(values, 0.99),
        condition_number=float(values[0]) / smallest if smallest else float("inf"),
        groups=g,
    )
