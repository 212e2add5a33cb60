"""Targeted attacks: only the target class counts."""

from __future__ import annotations

import pytest
import torch

from assay.attacks.engine import attack
from assay.attacks.methods.apgd import APGD, APGDT
from assay.attacks.methods.ensembles import AdaptiveAttack, StandardAttack
from assay.attacks.methods.fab import FAB
from assay.attacks.methods.gradient import PGD
from assay.attacks.methods.minimum_norm import MinimumNorm
from assay.attacks.methods.square import Square
from assay.errors import DataError

ATTACKS = {
    "pgd": PGD(steps=30),
    "pgd-margin": PGD(steps=30, loss="margin"),
    "apgd-ce": APGD(steps=30),
    "apgd-t": APGDT(steps=30),
    "fab-t": FAB(steps=30),
    "min-norm": MinimumNorm(steps=60),
}


@pytest.fixture
def problem(conv_net, small_set):
    images = small_set.images.float() / 255
    with torch.no_grad():
        target_classes = conv_net(images).argsort(dim=1, descending=True)[:, 2]  # the third likeliest
    target_classes = torch.where(target_classes == small_set.labels, (target_classes + 1) % 4, target_classes)
    return images, small_set.labels, target_classes


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_reaches_its_target_and_nothing_else_counts(conv_net, problem, name):
    images, labels, target_classes = problem
    result = attack(conv_net, images, labels, attack=ATTACKS[name], epsilon=0.1, target_classes=target_classes)
    untargeted = attack(conv_net, images, labels, attack=ATTACKS[name], epsilon=0.1)
    with torch.no_grad():
        after = conv_net(result.adversarial).argmax(dim=1)
    assert torch.equal(after == target_classes, result.broken | ((after == target_classes) & ~result.clean_correct))
    assert int(result.broken.sum()) > 0.7 * int(result.clean_correct.sum())
    assert torch.equal(result.robust, result.clean_correct & ~result.broken)
    with torch.no_grad():
        elsewhere = conv_net(untargeted.adversarial).argmax(dim=1)
    assert (
        elsewhere[untargeted.broken] != target_classes[untargeted.broken]
    ).any()  # without being told, they go elsewhere


def test_a_blind_search_reaches_targets_too(conv_net, problem):
    images, labels, target_classes = problem
    result = attack(conv_net, images, labels, attack=Square(queries=200), epsilon=0.2, target_classes=target_classes)
    assert int(result.broken.sum()) > 5


def test_a_linear_model_of_two_classes_is_as_far_from_the_other_class_as_from_any(linear, near_grey):
    images, labels = near_grey
    options = MinimumNorm(steps=60)
    both = [
        attack(linear, images, labels, attack=options, epsilon=1.0, target_classes=t).distances
        for t in (None, 1 - labels)
    ]
    assert torch.allclose(both[0], both[1], rtol=1e-3)


def test_an_ensemble_runs_each_method_once_towards_a_target_class(conv_net, problem):
    images, labels, target_classes = problem
    result = attack(
        conv_net, images, labels, attack=StandardAttack(steps=5, queries=5), epsilon=0.02, target_classes=target_classes
    )
    assert result.methods == ("apgd-ce", "apgd-t", "fab-t", "square")
    options = AdaptiveAttack(steps=5, queries=5, short_queries=5, tolerance=0.5)
    result = attack(conv_net, images, labels, attack=options, epsilon=0.02, target_classes=target_classes)
    assert result.methods[:4] == ("apgd-ce", "apgd-t", "square", "fab-t")


def test_targets_that_are_none_are_named(conv_net, problem):
    images, labels, target_classes = problem
    wrong = target_classes.clone()
    wrong[3] = labels[3]
    with pytest.raises(
        DataError, match=rf"target_classes\[3\]: expected a class of 0..3 other than the label {labels[3]}"
    ):
        attack(conv_net, images, labels, target_classes=wrong)
    with pytest.raises(DataError, match=r"target_classes: expected int64 \(48,\), got torch.int64 \(47,\)"):
        attack(conv_net, images, labels, target_classes=target_classes[:47])
