"""Targeted attacks: only the class that was asked for counts."""

from __future__ import annotations

import pytest
import torch

from assay.attacks.engine import attack
from assay.attacks.methods.ensembles import Adaptive, ApgdCe, ApgdT, FabT, MinimumNorm, SquareSearch, Standard
from assay.attacks.methods.gradient import Pgd
from assay.errors import DataError

ATTACKS = {
    "pgd": Pgd(steps=30),
    "pgd-margin": Pgd(steps=30, loss="margin"),
    "apgd-ce": ApgdCe(steps=30),
    "apgd-t": ApgdT(steps=30),
    "fab-t": FabT(steps=30),
    "min-norm": MinimumNorm(steps=60),
}


@pytest.fixture
def problem(conv_net, small_set):
    images = small_set.images.float() / 255
    with torch.no_grad():
        targets = conv_net(images).argsort(dim=1, descending=True)[:, 2]  # the third likeliest
    targets = torch.where(targets == small_set.labels, (targets + 1) % 4, targets)
    return images, small_set.labels, targets


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_reaches_its_target_and_nothing_else_counts(conv_net, problem, name):
    images, labels, targets = problem
    outcome = attack(conv_net, images, labels, attack=ATTACKS[name], epsilon=0.1, targets=targets)
    untargeted = attack(conv_net, images, labels, attack=ATTACKS[name], epsilon=0.1)
    with torch.no_grad():
        after = conv_net(outcome.adversarial).argmax(dim=1)
    assert torch.equal(after == targets, outcome.broken | ((after == targets) & ~outcome.clean_right))
    assert int(outcome.broken.sum()) > 0.7 * int(outcome.clean_right.sum())
    assert torch.equal(outcome.robust, outcome.clean_right & ~outcome.broken)
    with torch.no_grad():
        elsewhere = conv_net(untargeted.adversarial).argmax(dim=1)
    assert (elsewhere[untargeted.broken] != targets[untargeted.broken]).any()  # without being told, they go elsewhere


def test_a_blind_search_reaches_targets_too(conv_net, problem):
    images, labels, targets = problem
    outcome = attack(conv_net, images, labels, attack=SquareSearch(queries=200), epsilon=0.2, targets=targets)
    assert int(outcome.broken.sum()) > 5


def test_a_linear_model_of_two_classes_is_as_far_from_the_other_class_as_from_any(linear, near_grey):
    images, labels = near_grey
    options = MinimumNorm(steps=60)
    both = [
        attack(linear, images, labels, attack=options, epsilon=1.0, targets=t).distances for t in (None, 1 - labels)
    ]
    assert torch.allclose(both[0], both[1], rtol=1e-3)


def test_an_ensemble_asks_for_one_target_once(conv_net, problem):
    images, labels, targets = problem
    outcome = attack(conv_net, images, labels, attack=Standard(steps=5, queries=5), epsilon=0.02, targets=targets)
    assert outcome.methods == ("apgd-ce", "apgd-t", "fab-t", "square")
    options = Adaptive(steps=5, queries=5, short_queries=5, tolerance=0.5)
    outcome = attack(conv_net, images, labels, attack=options, epsilon=0.02, targets=targets)
    assert outcome.methods[:4] == ("apgd-ce", "apgd-t", "square", "fab-t")


def test_targets_that_are_none_are_named(conv_net, problem):
    images, labels, targets = problem
    wrong = targets.clone()
    wrong[3] = labels[3]
    with pytest.raises(DataError, match=rf"targets\[3\]: expected a class of 0..3 other than the label {labels[3]}"):
        attack(conv_net, images, labels, targets=wrong)
    with pytest.raises(DataError, match=r"targets: expected int64 \(48,\), got torch.int64 \(47,\)"):
        attack(conv_net, images, labels, targets=targets[:47])
