"""How redundant the layers of a model are: the singular values of every weight matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from assay.arguments import checked
from assay.errors import ModelError
from assay.records.compression import LayerSpectra, LayerSpectrum

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
_NORM_NAMES = ("LayerNorm", "GroupNorm", "RMSNorm")  # what is left of their class in a scripted module


@dataclass(frozen=True, eq=False)
class WeightMatrix:
    """One weight as ``blocks`` (g, rows, columns): the diagonal blocks of its matrix, one for each group; float64.

    ``unit`` is the rounding below which a singular value counts as zero, relative to the largest: that of float32, or
    of float64 for a weight in it. The numbers of half floats are taken as they are.
    """

    name: str
    type: str
    blocks: Tensor
    unit: float


@checked
def measure_spectra(model: nn.Module) -> LayerSpectra:
    """Singular values, condition number, effective rank and redundancy of every weight matrix of ``model``.

    A convolution (c_out, c_in/g, k, k) is the matrix (c_out, c_in·k²) that acts on patches, block-diagonal with one
    block for each of the g groups; linear, embedding, recurrent and attention weights are taken as they are, and any
    other parameter of two dimensions or more as (first, all the rest). A weight shared by several modules counts once,
    vectors and matrices of one row not at all. Weight norm and spectral norm, of either kind that torch has, count by
    the weight that the layer computes with; a quantised weight by the numbers that it stands for, and its type says
    so. In float64, on the CPU.

    Args:
        model: Any module; it is not run.

    Returns:
        A spectrum for each weight matrix, in the order of the modules, and the share of all weights that
        factors with 99 % of the energy would save.

    Raises:
        ModelError: A weight is not finite, not initialised yet, without values, or of complex numbers.

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
        kind = getattr(module, "original_name", type(module).__name__)  # of a scripted module, its class
        if isinstance(module, (ParametrizationList, *_NORMS)) or kind in _NORM_NAMES:
            continue
        for name, weight in _own_weights(module):
            source = getattr(getattr(module, "parametrizations", {}), name, None)
            identity = id(source if source is not None else weight)
            if identity in known:
                continue
            known.add(identity)
            where = f"{path}.{name}".lstrip(".")
            if weight.shape[0] < 2 or weight.numel() == 0:
                continue
            values = _read_weight(where, weight)
            groups = getattr(module, "groups", 1) if "Conv" in kind else 1
            # (c_out, c_in/g, k, k) -> (g, c_out/g, c_in/g·k²); a transposed convolution keeps c_in in front
            blocks = values.reshape(groups, weight.shape[0] // groups, -1)
            unit = torch.finfo(torch.float64 if weight.dtype == torch.float64 else torch.float32).eps
            shown = f"quantised {kind}" if weight.is_quantized else kind
            yield WeightMatrix(path if name == "weight" and path else where, shown, blocks, unit)


def rank_for_energy(singular_values: Tensor, energy: float) -> int:
    """The smallest r with Σ_{i≤r} σ_i² ≥ energy · Σ σ_i²; 0 for a zero matrix."""
    largest = float(singular_values.max()) if len(singular_values) else 0.0
    if largest == 0:
        return 0
    squares = (singular_values.double() / largest).square()
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
    for name, makers in getattr(module, "parametrizations", {}).items():
        modes = {each: each.training for each in makers.modules()}
        for each in modes:
            each.training = False  # in training mode a spectral norm takes a step of its power iteration at each look
        try:
            weight = getattr(module, name)
        finally:
            for each, mode in modes.items():
                each.training = mode
        if weight.ndim >= 2:
            yield name, weight
    behind: set[str] = set()
    for hook in module._forward_pre_hooks.values():  # the older form of both: a hook that makes the weight in time
        if isinstance(hook, WeightNorm | SpectralNorm):
            behind |= {f"{hook.name}_{suffix}" for suffix in ("orig", "g", "v")}
            yield hook.name, _made_by(hook, module)
    for name, parameter in module.named_parameters(recurse=False):
        if name in behind:
            continue
        if isinstance(parameter, UninitializedParameter):
            where = f"{type(module).__name__}.{name}"
            raise ModelError(where, expected="an initialised weight", got="a lazy one: run one batch first")
        if parameter.ndim >= 2 and (parameter.is_floating_point() or parameter.is_complex()):
            yield name, parameter
    if isinstance(unpack := getattr(type(module), "weight", None), FunctionType):  # of a quantised layer
        yield "weight", unpack(module)


def _made_by(hook: WeightNorm | SpectralNorm, module: nn.Module) -> Tensor:
    """The weight of the next forward pass in evaluation mode: no power iteration."""
    with torch.no_grad():
        made = hook.compute_weight(module, False) if isinstance(hook, SpectralNorm) else hook.compute_weight(module)
    assert isinstance(made, Tensor)
    return made


def _read_weight(where: str, weight: Tensor) -> Tensor:
    """The weight in float64. Raises :class:`ModelError` for one that is no matrix of finite real numbers."""
    weight = weight.detach()
    if weight.is_meta or weight.is_complex():
        got = "one on the meta device" if weight.is_meta else "complex numbers"
        raise ModelError(where, expected="a weight of real numbers", got=got)
    if weight.is_quantized:
        weight = weight.dequantize()
    if weight.layout != torch.strided:
        weight = weight.to_dense()
    values = weight.cpu().double()  # in this order: not every device has float64
    wrong = ~values.isfinite()
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        got = f"{float(values[tuple(place)])} ({int(wrong.sum())} of {wrong.numel()})"
        raise ModelError(f"{where}{place}", expected="finite weights", got=got)
    return values


def _singular_values(matrix: WeightMatrix) -> Tensor:
    """float64 (g, min(rows, columns)), falling within each block.

    A float64 Gram matrix resolves σ down to 1e-8 σ₁, below what float32 weights can mean, and costs a tenth of an SVD.
    """
    blocks = matrix.blocks
    if matrix.unit < 1e-10:
        exact: Tensor = torch.linalg.svdvals(blocks)
        return exact
    small = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
    squares: Tensor = torch.linalg.eigvalsh(small @ small.mT)
    return squares.clamp_min(0).sqrt().flip(-1)


def _describe(matrix: WeightMatrix, sigmas: Tensor) -> LayerSpectrum:
    g, rows, columns = matrix.blocks.shape
    values = sigmas.flatten().sort(descending=True).values
    floor = float(values[0]) * max(g * rows, g * columns) * matrix.unit
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
