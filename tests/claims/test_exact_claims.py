"""Claims that closed forms and counting decide come out as they must, at the smallest budget."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torchvision.models import resnet18

from assay.claims import Settings
from assay.claims.group_by_name import group_by_name
from assay.claims.networks import image_matrix
from assay.records.claims import ClaimFact, ClaimResult

Examined = Callable[[str], ClaimResult]


def fact(result: ClaimResult, words: str) -> ClaimFact:
    (found,) = [fact for fact in result.evidence.facts if words in fact.name]
    return found


def test_skips_change_dimensions_where_blocks_downsample(examined: Examined) -> None:
    result = examined("residual-shape")
    assert result.verdict == "supported"
    (table,) = result.evidence.tables
    assert {row[0]: row[1:4] for row in table.rows} == {
        "ResNet-20, A": (9, 2, 2),
        "ResNet-20, B": (9, 2, 2),
        "ResNet-56, A": (27, 2, 2),
        "ResNet-56, B": (27, 2, 2),
        "ResNet-18, B": (8, 3, 3),
        "ResNet-50, B": (16, 3, 4),
    }
    bottleneck = fact(result, "ResNet-50")
    assert (bottleneck.holds, bottleneck.got, bottleneck.decides) == (False, "layer1.0", False)


def test_without_dropout_and_batchnorm_the_modes_agree_exactly(examined: Examined) -> None:
    result = examined("modes-differ")
    assert fact(result, "without dropout").got == "0"
    assert fact(result, "LayerNorm").holds
    assert all(effect.mean > 1 for effect in result.effects)


def test_the_name_bn_misses_three_of_twenty(examined: Examined) -> None:
    result = examined("group-by-name")
    assert result.verdict == "refuted"
    assert fact(result, "torchvision's ResNet-18").got == "17 of 20"
    assert "layer2.0.downsample.1, layer3.0.downsample.1, layer4.0.downsample.1" in result.evidence.tables[0].rows[0]
    model = resnet18()
    decayed = group_by_name(model, weight_decay=1e-4).param_groups[0]["params"]
    names = {name for name, parameter in model.named_parameters() if any(parameter is other for other in decayed)}
    assert {f"layer{i}.0.downsample.1.weight" for i in (2, 3, 4)} <= names
    assert "layer2.0.bn1.weight" not in names


def test_the_factorisation_is_not_convex(examined: Examined) -> None:
    result = examined("factor-nonconvex")
    assert result.verdict == "supported"
    assert fact(result, "X = 1").got == "0, 0, 1"
    hill, spectra = result.evidence.charts
    heights = {point.x: point.y for point in hill.points if point.series == "f on the way"}
    assert heights[0] == pytest.approx(1)
    assert heights[1] == pytest.approx(min(heights.values()))
    assert min(p.y for p in spectra.points if p.series == "at the origin") == pytest.approx(-2)
    assert min(p.y for p in spectra.points if p.series == "at the minimum") == pytest.approx(0, abs=1e-12)


def test_descent_reaches_the_svd_from_every_start(examined: Examined) -> None:
    result = examined("factor-svd")
    assert result.verdict == "supported"
    assert fact(result, "strict saddles").holds
    assert max(map(abs, result.evidence.samples[0].values)) < 1e-6


def test_the_gauge_keeps_the_loss_and_changes_the_sharpness(examined: Examined) -> None:
    result = examined("factor-gauge")
    assert fact(result, "change of the loss").holds
    assert fact(result, "invertible G").holds
    turned = result.effects[1]
    assert min(result.evidence.samples[0].values) > 1
    assert (turned.mean, turned.outcome) == (pytest.approx(1), "supported")
    (chart,) = result.evidence.charts
    curves = {name: {p.x: p.y for p in chart.points if p.series == name} for name in {p.series for p in chart.points}}
    assert curves["λmax, measured"] == pytest.approx(curves["2σ₁(c² + c⁻²)"], rel=1e-6)
    assert len({round(loss, 6) for loss in curves["loss"].values()}) == 1


def test_the_matrix_of_images_has_a_row_an_image(tiny: Settings) -> None:
    X = image_matrix(tiny, rows=5)
    assert (X.shape, X.dtype) == ((5, 64), torch.float64)
    whole = tiny.train().images[2].double() / 255
    assert float(X[2].mean()) == pytest.approx(float(whole.mean()), abs=1e-6)
