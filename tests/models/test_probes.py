"""What several measurements ask of a model: its mode, the kind of its outputs, a sample alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.errors import ModelError
from assay.models.probes import gap_alone, in_mode, output_kind, probe_modes, relative_gap

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        (LOGITS, "logits"),
        (LOGITS.softmax(dim=1), "probabilities"),
        (LOGITS.log_softmax(dim=1), "log-probabilities"),
        (torch.full((2, 3), torch.nan), "logits"),
        (torch.cat([LOGITS.softmax(dim=1), torch.full((1, 3), torch.inf)]), "probabilities"),
    ],
)
def test_the_kind_of_outputs_is_told_from_finite_rows(outputs, kind):
    assert output_kind(outputs) == kind


def test_gaps_are_relative_to_the_range_and_agree_on_equal_non_finite_entries():
    scale = torch.tensor([0.0, 4.0, torch.inf])
    assert relative_gap(torch.tensor([1.0, torch.nan]), torch.tensor([2.0, torch.nan]), scale) == 0.25
    assert relative_gap(torch.tensor([torch.inf]), torch.tensor([1.0]), scale) == math.inf
    assert relative_gap(torch.ones(2), torch.ones(2), torch.ones(2)) == 0.0
    assert relative_gap(torch.ones(2), torch.zeros(2), torch.ones(2)) == math.inf
    nothing = torch.full((2,), torch.nan)
    assert math.isnan(relative_gap(nothing, nothing, nothing))
    assert relative_gap(torch.ones(2), nothing, nothing) == math.inf


class Functional(nn.Module):
    """Its dropout is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.unused = nn.BatchNorm1d(3)

    def forward(self, x):
        return F.dropout(self.layer(x), training=self.training)


def test_modules_that_depend_on_the_mode_are_found_by_running_them():
    model = nn.Sequential(Functional(), nn.Dropout(0.0), nn.ReLU())
    with torch.no_grad(), in_mode(model, training=False), probe_modes(model) as probe:
        model(torch.ones(4, 3))
    assert probe.dependent(model) == {"0", "0.unused"}
    assert probe.called == {"", "0", "0.layer", "1", "2"}
    assert model.training


def test_samples_alone_are_compared_with_their_rows_and_failures_are_named():
    images = torch.rand(6, 3)
    assert gap_alone(lambda x: 2 * x, images, 2 * images) == (0.0, None)
    gap, error = gap_alone(lambda x: x - x.mean(dim=0), images, images - images.mean(dim=0))
    assert gap > 0.1 and error is None
    assert gap_alone(lambda x: x - 1, images, images, scale=torch.tensor([0.0, 4.0]))[0] == pytest.approx(0.25)
    assert gap_alone(lambda x: x[0], images, images) == (math.inf, "one image alone gives (3,) instead of (1, 3)")

    def fails(x):
        raise ModelError("model(images)", expected="more images", got="one")

    assert gap_alone(fails, images, images) == (math.inf, "one")
