from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from assay.errors import ModelError
from assay.lowrank.spectrum import effective_rank, measure_spectra, rank_for_energy, stable_rank
from assay.records.compression import LayerSpectra


def with_spectrum(rows: int, columns: int, sigma: list[float], seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    k = len(sigma)
    left = torch.linalg.qr(torch.randn(rows, k, generator=g, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, k, generator=g, dtype=torch.float64)).Q
    return left * torch.tensor(sigma, dtype=torch.float64) @ right.T


def linear(matrix: torch.Tensor, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0]).to(dtype)
    layer.weight.data.copy_(matrix)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["gram", "svd"])
def test_a_linear_layer_shows_the_spectrum_it_was_built_with(dtype: torch.dtype) -> None:
    sigma = [8.0, 4.0, 2.0, 1.0]
    layer = measure_spectra(linear(with_spectrum(4, 7, sigma), dtype)).layers[0]
    assert layer.singular_values == pytest.approx(sigma, rel=1e-5)
    assert (layer.rows, layer.columns, layer.groups) == (4, 7, 1)
    assert layer.stable_rank == pytest.approx((64 + 16 + 4 + 1) / 64, rel=1e-5)
    assert layer.condition_number == pytest.approx(8, rel=1e-5)
    assert layer.rank_for_99 == 4  # three values hold 84/85 = 98.8 %


def test_effective_rank_of_equal_values_is_their_number() -> None:
    assert effective_rank(torch.full((6,), 3.0)) == pytest.approx(6)
    assert effective_rank(torch.tensor([5.0, 0.0, 0.0])) == pytest.approx(1)


def test_a_zero_matrix_has_rank_zero_and_infinite_condition() -> None:
    layer = measure_spectra(linear(torch.zeros(3, 5))).layers[0]
    assert (layer.stable_rank, layer.effective_rank, layer.rank_for_99) == (0.0, 0.0, 0)
    assert math.isinf(layer.condition_number)
    assert stable_rank(torch.zeros(3)) == 0


def test_a_rank_deficient_weight_is_seen_as_singular_despite_rounding() -> None:
    layer = measure_spectra(linear(with_spectrum(30, 40, [5.0, 2.0, 1.0]))).layers[0]
    assert sum(s > 0 for s in layer.singular_values) == 3
    assert math.isinf(layer.condition_number)


def test_a_convolution_is_the_matrix_that_acts_on_patches() -> None:
    conv = nn.Conv2d(3, 5, 3)
    layer = measure_spectra(conv).layers[0]
    expected = torch.linalg.svdvals(conv.weight.detach().double().reshape(5, 27))
    assert layer.singular_values == pytest.approx(expected.tolist(), rel=1e-6)
    assert (layer.rows, layer.columns) == (5, 27)


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_a_grouped_convolution_has_the_singular_values_of_the_block_diagonal_matrix(groups: int) -> None:
    conv = nn.Conv2d(8, 16, 3, groups=groups)
    full = torch.block_diag(*conv.weight.detach().double().reshape(groups, 16 // groups, -1))
    layer = measure_spectra(conv).layers[0]
    expected = torch.linalg.svdvals(full)[: len(layer.singular_values)]
    assert (layer.rows, layer.columns, layer.groups) == (*full.shape, groups)
    assert layer.singular_values == pytest.approx(expected.tolist(), rel=1e-6)


def test_redundancy_counts_the_parameters_that_99_percent_of_the_energy_would_save() -> None:
    spectra = measure_spectra(linear(with_spectrum(20, 30, [10.0, 1e-3])))
    assert spectra.redundancy == pytest.approx(1 - (20 + 30) / 600)
    assert measure_spectra(linear(torch.eye(6))).redundancy == 0.0
    assert measure_spectra(nn.ReLU()) == LayerSpectra(layers=(), redundancy=0.0)


def test_every_kind_of_weight_matrix_is_found_once() -> None:
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(11, 4),
            "rnn": nn.LSTM(4, 3),
            "attend": nn.MultiheadAttention(4, 2),
            "norm": nn.LayerNorm([2, 4]),
            "head": nn.Linear(4, 11, bias=False),
            "normed": weight_norm(nn.Linear(4, 2)),
            "one": nn.Linear(4, 1),
        }
    )
    model["head"].weight = model["embed"].weight
    found = {layer.name: (layer.rows, layer.columns) for layer in measure_spectra(model).layers}
    assert found == {
        "embed": (11, 4),
        "rnn.weight_ih_l0": (12, 4),
        "rnn.weight_hh_l0": (12, 3),
        "attend.in_proj_weight": (12, 4),
        "attend.out_proj": (4, 4),
        "normed": (2, 4),
    }


def test_a_weight_that_is_not_finite_is_named_counted_and_located() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[1].weight.data[1, 0] = float("nan")
    with pytest.raises(ModelError, match=r"1\.weight\[1, 0\]: expected finite weights, got nan \(1 of 4\)"):
        measure_spectra(model)


def test_a_lazy_weight_is_refused() -> None:
    with pytest.raises(ModelError, match="lazy"):
        measure_spectra(nn.LazyLinear(3))


def test_rank_for_energy_is_the_smallest_that_holds_it() -> None:
    sigma = torch.tensor([3.0, 4.0, 0.0]).sort(descending=True).values
    assert [rank_for_energy(sigma, e) for e in (0.5, 0.64, 0.65, 1.0)] == [1, 1, 2, 2]


def test_the_record_survives_json() -> None:
    spectra = measure_spectra(nn.Sequential(linear(torch.zeros(2, 3)), nn.Conv2d(2, 4, 3)))
    assert LayerSpectra.model_validate_json(spectra.model_dump_json()) == spectra


@pytest.mark.parametrize("shape", [(300, 300), (40, 700), (3, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_precision_has_the_spectrum_of_its_numbers(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    layer = measure_spectra(linear(weight, dtype)).layers[0]
    sigma = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    assert layer.singular_values == pytest.approx(sigma.tolist(), rel=1e-5, abs=1e-5 * sigma[0])
    assert layer.stable_rank == pytest.approx((sigma**2).sum() / sigma[0] ** 2)
    assert layer.condition_number == pytest.approx(sigma[0] / sigma[-1], rel=1e-4)
    shares = np.cumsum(sigma**2) / (sigma**2).sum()
    assert layer.rank_for_99 == int((shares < 0.99 - 1e-12).sum()) + 1


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scales_whose_squares_leave_the_range(scale: float) -> None:
    weight = with_spectrum(6, 5, [3.0, 2.0, 1.0]) * scale
    layer = measure_spectra(linear(weight, torch.float64)).layers[0]
    assert layer.stable_rank == pytest.approx(14 / 9) and layer.rank_for_99 == 3
    assert layer.singular_values[:3] == pytest.approx([3 * scale, 2 * scale, scale])


@pytest.mark.filterwarnings("ignore")
def test_a_weight_that_is_made_from_others_counts_as_the_layer_uses_it() -> None:
    makers = (weight_norm, spectral_norm, nn.utils.weight_norm, nn.utils.spectral_norm)
    for make in makers:
        module = make(nn.Linear(8, 6))
        before = {name: value.clone() for name, value in module.state_dict().items()}
        (layer,) = measure_spectra(module).layers
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        used = module.eval()(torch.eye(8)) - module.bias
        expected = np.linalg.svd(used.detach().double().numpy(), compute_uv=False)
        assert layer.singular_values == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_scripted_quantised_and_empty_layers() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.LayerNorm([2, 3]), nn.Linear(3, 4))
    plain, scripted = measure_spectra(model), measure_spectra(torch.jit.script(model))
    assert [layer.name for layer in scripted.layers] == ["0", "2"] and scripted == plain
    packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 6)), {nn.Linear})
    (layer,) = measure_spectra(packed).layers
    expected = np.linalg.svd(packed[0].weight().dequantize().double().numpy(), compute_uv=False)
    assert layer.type == "quantised Linear" and layer.singular_values == pytest.approx(expected.tolist(), rel=1e-5)
    assert measure_spectra(nn.Sequential(nn.Linear(0, 4), nn.Linear(4, 0), nn.Conv2d(1, 1, 1))).layers == ()


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_weights_without_numbers_to_measure_are_refused() -> None:
    with pytest.raises(ModelError, match="weight: expected a weight of real numbers, got complex numbers"):
        measure_spectra(nn.Linear(4, 4).to(torch.complex64))
    with pytest.raises(ModelError, match="weight: expected a weight of real numbers, got one on the meta device"):
        measure_spectra(nn.Linear(4, 4, device="meta"))
