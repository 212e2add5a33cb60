"""What attacks maximise."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from assay.attacks.losses import LOSSES, find_loss, fit_to_classes
from assay.errors import OptionError

LOGITS = torch.tensor([[3.0, 1.0, 0.5, -1.0], [0.0, 2.0, 5.0, 1.0]])
LABELS = torch.tensor([0, 1])
TARGETS = torch.tensor([2, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("margin", [1.0 - 3.0, 5.0 - 2.0]),
        ("dlr", [-2.0 / (3.0 - 0.5), 3.0 / (5.0 - 1.0)]),
        ("targeted-margin", [0.5 - 3.0, 0.0 - 2.0]),
        ("targeted-dlr", [-2.5 / (3.0 - (0.5 - 1.0) / 2), -2.0 / (5.0 - (1.0 + 0.0) / 2)]),
    ],
)
def test_losses_by_hand(name, expected):
    assert find_loss(name)(LOGITS, LABELS, TARGETS).tolist() == pytest.approx(expected)


def test_losses_from_probabilities():
    p = LOGITS.softmax(dim=1)
    assert find_loss("ce")(LOGITS, LABELS, TARGETS).tolist() == pytest.approx((-p[[0, 1], LABELS].log()).tolist())
    assert find_loss("targeted-ce")(LOGITS, LABELS, TARGETS).tolist() == pytest.approx(
        p[[0, 1], TARGETS].log().tolist()
    )
    assert find_loss("probability-margin")(LOGITS, LABELS, TARGETS).tolist() == pytest.approx(
        [float(p[0, 1] - p[0, 0]), float(p[1, 2] - p[1, 1])]
    )


@pytest.mark.parametrize("name", ["dlr", "targeted-dlr"])
def test_ratios_ignore_shift_and_scale(name):
    loss = find_loss(name)
    changed = loss(7.0 * LOGITS + 100.0, LABELS, TARGETS)
    assert torch.allclose(changed, loss(LOGITS, LABELS, TARGETS), rtol=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_has_a_finite_gradient_at_saturated_logits(name):
    logits = torch.tensor([[500.0, -500.0, 0.0, 1.0]], requires_grad=True)
    find_loss(name)(logits, torch.tensor([0]), torch.tensor([1])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_two_classes_get_a_margin_and_are_told():
    loss, notes = fit_to_classes(find_loss("dlr"), 2)
    logits = torch.tensor([[2.0, -1.0]])
    assert loss(logits, torch.tensor([0]), torch.tensor([1])).tolist() == [-3.0]
    assert notes == ("dlr needs 3 classes, the data have 2: margin instead",)
    assert len(fit_to_classes(find_loss("targeted-dlr"), 3)[1]) == 1
    assert fit_to_classes(find_loss("dlr"), 3) == (find_loss("dlr"), ())
    assert fit_to_classes(F.cross_entropy, 2) == (F.cross_entropy, ())


def test_an_unknown_loss_names_them_all():
    with pytest.raises(OptionError, match=r"loss: expected one of ce, margin, dlr, .*, got 'hinge'"):
        find_loss("hinge")
