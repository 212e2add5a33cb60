from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from assay.diagnostics import saliency
from assay.diagnostics.saliency import measure_input_gradients
from assay.errors import ModelError


class Linear(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(192, 4)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.fc(x.flatten(1))


def closed_form(model: Linear, images) -> torch.Tensor:
    """∂ℓ/∂x = Wᵀ(softmax(z) − onehot(y)) of a linear model."""
    with torch.no_grad():
        p = model(images.images.float().div(255)).softmax(1)
        return (p - torch.eye(4)[images.labels]) @ (model.scale * model.fc.weight)


def test_norms_match_the_closed_form_of_a_linear_model(images) -> None:
    model = Linear()
    gradient = closed_form(model, images)
    norms = gradient.norm(dim=1).double()
    with torch.no_grad():
        right = model(images.images.float().div(255)).argmax(1) == images.labels
    record = measure_input_gradients(model, images, batch_size=7)
    assert (record.n_right, record.n_wrong) == (int(right.sum()), int((~right).sum()))
    assert record.median_norm_right == pytest.approx(float(norms[right].quantile(0.5)), rel=1e-5)
    assert record.median_norm_wrong == pytest.approx(float(norms[~right].quantile(0.5)), rel=1e-5)
    energy = gradient.reshape(-1, 3, 64).square().sum(1)
    share = energy.topk(6, dim=1).values.sum(1) / energy.sum(1)
    assert record.concentration == pytest.approx(float(share.mean()), rel=1e-5)
    assert (record.zero, record.non_finite) == (0, 0)
    by_name = dict(zip([images.sample_name(i) for i in range(48)], norms.tolist(), strict=True))
    assert all(sample.gradient_norm == pytest.approx(by_name[sample.sample_id], rel=1e-5) for sample in record.samples)


def test_shows_right_and_wrong_images_and_scales_each_map_to_its_maximum(images) -> None:
    record = measure_input_gradients(Linear(), images, shown=8)
    assert len(record.samples) == 8
    assert sum(sample.correct for sample in record.samples) == 4
    assert all(sample.correct == (sample.label == sample.prediction) for sample in record.samples)
    for sample in record.samples:
        assert np.asarray(Image.open(io.BytesIO(base64.b64decode(sample.gradient_map)))).max() == 255


def test_a_masked_gradient_counts_as_zero_and_a_huge_scale_underflows(images) -> None:
    class Masked(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.round())

    masked = measure_input_gradients(Masked(), images)
    assert masked.zero == 48
    assert np.isnan(masked.concentration)
    saturated = measure_input_gradients(Linear(scale=1e6), images)
    assert saturated.zero == saturated.n_right > 0
    assert saturated.median_norm_right == 0.0


def test_non_finite_gradients_are_counted_and_left_out_of_the_quantiles(images) -> None:
    class Broken(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x.flatten(1)[:, :1] > 0.5, torch.nan, 1.0) * super().forward(x)

    record = measure_input_gradients(Broken(), images)
    expected = int((images.images.flatten(1)[:, 0] > 127).sum())
    assert record.non_finite == expected > 0
    assert np.isfinite(record.quantiles_wrong).all()
    assert record.n_right + record.n_wrong == 48


def test_leaves_the_model_as_found(images, untouched) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 4)).train()
    model[1].bias.requires_grad_(False)
    with untouched(model):
        measure_input_gradients(model, images)


def test_a_set_with_only_wrong_answers_is_shown_whole(images) -> None:
    model = Linear()
    with torch.no_grad():
        wrong = model(images.images.float().div(255)).argmax(1) != images.labels
    record = measure_input_gradients(model, images.subset(wrong), shown=6)
    assert (record.n_right, len(record.samples)) == (0, 6)
    assert record.median_norm_right is None
    assert record.quantiles_right == ()


@pytest.mark.parametrize("cut", [lambda z: z.detach(), lambda z: z.detach().requires_grad_()], ids=["detached", "leaf"])
def test_a_cut_path_is_refused_or_counted(images, cut) -> None:
    class Cut(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return cut(super().forward(x))

    if cut(torch.ones(1)).requires_grad:
        assert measure_input_gradients(Cut(), images).zero == 48
    else:
        with pytest.raises(ModelError, match="got an output cut off from its input"):
            measure_input_gradients(Cut(), images)


def test_parts_of_the_gradients_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = torch.randn(37, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    gradients[5] = 0
    whole = saliency._concentration(gradients)
    energy = gradients.double().square().sum(dim=1).flatten(1)
    shares = [float(row.topk(12).values.sum() / row.sum()) for row in energy if row.sum() > 0]
    monkeypatch.setattr(saliency, "_PART_VALUES", 4 * 360)
    assert len(saliency._parts(gradients)) == 10
    assert saliency._concentration(gradients) == pytest.approx(whole) == pytest.approx(sum(shares) / len(shares))
    assert math.isnan(saliency._concentration(torch.zeros(2, 1, 4, 4)))
    assert math.isnan(saliency._concentration(torch.zeros(0, 1, 4, 4)))
