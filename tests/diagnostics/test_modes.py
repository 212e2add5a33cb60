from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.diagnostics.modes import audit_modes
from assay.errors import DataError, ModelError
from assay.records.configuration import ModeAudit


def small(*, dropout: float = 0.5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8 * 36, 4),
    )


class Functional(nn.Module):
    """Dropout hidden in a function, as much as its mode says or always."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(192, 4)
        self.always = always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.dropout(x.flatten(1), 0.5, training=self.always or self.training))


class Wrap(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(192, 4)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.fc(x.flatten(1)))


def test_leaves_the_model_as_found(images, untouched) -> None:
    model = small()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    with untouched(model):
        audit_modes(model, images)


def test_names_the_modules_that_depend_on_the_mode_as_handed_over(images) -> None:
    model = small().train()
    model[1].eval()
    audit = audit_modes(model, images)
    assert audit.training_flag
    assert audit.modules_in_train_mode == ("4",)
    assert audit.modules_in_eval_mode == ("1",)


def test_a_model_without_a_mode_has_no_gap(images) -> None:
    audit = audit_modes(Wrap(lambda z: z).train(), images)
    assert audit.modules_in_train_mode == audit.modules_in_eval_mode == ()
    assert audit.train_eval_gap == audit.repeat_gap == 0.0
    assert audit.batch_gap < 1e-5


def test_dropout_inside_a_function_is_found_by_measuring(images) -> None:
    audit = audit_modes(Functional(always=False).train(), images)
    assert audit.modules_in_train_mode == ("(model)",)
    assert audit.train_eval_gap > 0.05
    assert audit.repeat_gap == 0.0


def test_dropout_that_is_always_on_shows_as_a_repeat_gap_and_not_as_a_mode(images) -> None:
    audit = audit_modes(Functional(always=True).eval(), images)
    assert audit.repeat_gap > 0.05
    assert audit.modules_in_train_mode == audit.modules_in_eval_mode == ()


def test_batchnorm_gap_matches_its_closed_form(images) -> None:
    """With running mean 0 and variance 1 the two modes differ by exactly the batch's standardisation."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False), nn.BatchNorm1d(4, affine=False, eps=1e-12))
    with torch.no_grad():
        x = images.images[:32].float().div(255).flatten(1)
        evaluation = model[1](x)
        training = (evaluation - evaluation.mean(0)) / evaluation.std(0, unbiased=False)
        expected = (training - evaluation).abs().max() / (evaluation.max() - evaluation.min())
    gap = audit_modes(model, images.subset(torch.arange(32)), n=32).train_eval_gap
    assert gap == pytest.approx(float(expected), rel=1e-4)


def test_a_prediction_that_depends_on_its_company_is_found(images) -> None:
    audit = audit_modes(Wrap(lambda z: z - z.mean(dim=0)), images)
    assert audit.batch_gap > 0.1
    assert audit.repeat_gap == 0.0


def test_a_squeeze_that_loses_the_batch_of_one_is_named(images) -> None:
    audit = audit_modes(Wrap(lambda z: z.squeeze()), images)
    assert audit.batch_gap == math.inf
    assert audit.batch_error == "one image alone gives (4,) instead of (1, 4)"


@pytest.mark.parametrize(
    ("function", "looks"),
    [
        (lambda z: z, "logits"),
        (lambda z: z.softmax(1), "probabilities"),
        (lambda z: z.log_softmax(1), "log-probabilities"),
        (lambda z: z.sigmoid(), "logits"),
        (lambda z: z * torch.nan, "logits"),
    ],
    ids=["logits", "softmax", "log-softmax", "sigmoid", "nan"],
)
def test_outputs_look_like(images, function, looks) -> None:
    assert audit_modes(Wrap(function), images).outputs_look_like == looks


def test_dropout_that_never_acts_is_named(images) -> None:
    model = small(dropout=0.0)
    model.add_module("spare", nn.Identity())
    model[0].unused = nn.Dropout(0.5)
    audit = audit_modes(model, images)
    assert audit.idle_dropout == ("0.unused", "4")
    assert audit_modes(small(dropout=0.5), images).idle_dropout == ()


def test_a_scripted_model_is_audited_as_a_whole(images) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still about
        model = torch.jit.script(small())
    audit = audit_modes(model, images)
    assert audit.train_eval_gap > 0.05
    assert audit.repeat_gap == 0.0


def test_non_finite_parameters_and_buffers_are_named(images) -> None:
    model = small()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan
        model[1].running_var[2] = torch.inf
    assert audit_modes(model, images).non_finite_parameters == ("0.weight", "1.running_var")


def test_a_model_that_cannot_train_on_one_image_says_so(images) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4))
    audit = audit_modes(model, images, n=1)
    assert audit.train_eval_gap is None
    assert "more than 1 value" in audit.train_mode_error
    assert audit.modules_in_train_mode == ("2",)


def test_two_audits_are_equal_and_survive_json(images) -> None:
    first, second = audit_modes(small(), images), audit_modes(small(), images)
    assert first == second
    assert ModeAudit.model_validate_json(first.model_dump_json()) == first


def test_bad_input_is_one_line(images) -> None:
    with pytest.raises(DataError, match="got an empty set"):
        audit_modes(small(), images.subset(torch.arange(0)))
    with pytest.raises(
        ModelError, match=r"model\(images\): expected a model that takes images of shape \(N, 3, 8, 8\)"
    ):
        audit_modes(nn.Sequential(nn.Conv2d(1, 2, 3)), images)
    with pytest.raises(ModelError, match="model output: expected one tensor of logits"):
        audit_modes(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), images)
