"""Image operations, foreign attacks, transfer, averaged gradients, and the rule that ends an adaptive attack."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.attacks.early_stopping import EarlyStoppingByYield
from assay.attacks.engine import attack
from assay.attacks.methods.ensembles import AdaptiveAttack, StandardAttack
from assay.attacks.methods.external import External, Transfer
from assay.attacks.methods.gradient import FGSM, PGD
from assay.attacks.methods.transforms import GRID, STRENGTHS, Transforms
from assay.attacks.threat import Threat
from assay.augment.operations import CODES, TWELVE
from assay.augment.plan import apply_operation
from assay.errors import ModelError, OptionError


def test_the_grid_breaks_exactly_what_some_operation_breaks(conv_net, small_set):
    result = attack(conv_net, small_set.images.float() / 255, small_set.labels, attack=Transforms(search="grid"))
    fallen = torch.zeros(48, dtype=torch.bool)
    with torch.no_grad():
        for name, strengths in STRENGTHS.items():
            for strength in strengths:
                magnitude = round(strength * 8) if name.startswith("Translate") else strength
                changed = apply_operation(small_set.images, name, magnitude)
                fallen |= conv_net(changed.float() / 255).argmax(dim=1) != small_set.labels
    assert set(STRENGTHS) == set(TWELVE)
    assert torch.equal(result.broken, fallen & result.clean_correct)
    assert int(result.broken.sum()) > 0


def test_composition_is_at_least_as_strong_and_starts_from_the_worst(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    single = attack(conv_net, images, labels, attack=Transforms(search="grid"))
    double = attack(conv_net, images, labels, attack=Transforms(search="greedy", depth=2))
    assert (double.broken | ~single.broken).all()
    assert len(GRID) == 42
    assert Transforms(search="greedy", depth=2).describe(Threat())[0] == 84


def test_random_operations_depend_on_seed_and_sample_alone(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    options = Transforms(search="random", draws=6)
    one = attack(conv_net, images, labels, attack=options, seed=1)
    part = attack(conv_net, images[20:], labels[20:], attack=options, seed=1, ids=torch.arange(20, 48))
    assert torch.equal(one.steps[20:], part.steps)
    assert torch.equal(one.adversarial[20:], part.adversarial)
    other = attack(conv_net, images, labels, attack=options, seed=2)
    assert not torch.equal(one.adversarial, other.adversarial)
    assert CODES["Identity"] == 0  # what unused steps of a composition are filled with


def test_a_foreign_attack_is_judged_like_ours(linear, near_grey):
    images, labels = near_grey
    score = ((images * linear.w).flatten(1).sum(dim=1) + linear.b).detach().abs()
    epsilon = float((score / linear.w.abs().sum()).detach().median())

    def fair(x, y):
        toward = torch.where(y == 1, -1.0, 1.0)[:, None, None, None]
        return (x + epsilon * toward * linear.w.sign()).detach()

    def cheat(x, y):
        return x + 3 * (fair(x, y) - x)

    ours = attack(linear, images, labels, attack=FGSM(), epsilon=epsilon)
    theirs = attack(linear, images, labels, attack=External(perturb=fair, label="fair"), epsilon=epsilon)
    assert torch.equal(ours.broken, theirs.broken)
    assert theirs.methods == ("fair",)
    caught = attack(linear, images, labels, attack=External(perturb=cheat), epsilon=epsilon)
    assert not caught.broken.any()
    assert caught.counts.outside_ball > 0


def test_torchattacks_run_through_the_engine(conv_net, small_set):
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.PGD(conv_net, eps=0.05, alpha=0.0125, steps=10, random_start=False)
    images, labels = small_set.images.float() / 255, small_set.labels
    result = attack(conv_net, images, labels, attack=External(perturb=theirs), epsilon=0.05)
    assert int(result.broken.sum()) > 5
    assert result.counts.outside_ball == 0


def test_a_foreign_attack_of_the_wrong_shape_is_named(linear, near_grey):
    with pytest.raises(ModelError, match=r"odd\(images, labels\): expected images \(64, 3, 4, 4\), got \(64, 3\)"):
        attack(linear, *near_grey, attack=External(perturb=lambda x, y: x[:, :, 0, 0], label="odd"))


def test_transfer_climbs_the_source_and_is_judged_by_the_model(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    same = attack(conv_net, images, labels, attack=Transfer(), epsilon=0.05, source=conv_net)
    torch.manual_seed(9)
    stranger = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    other = attack(conv_net, images, labels, attack=Transfer(), epsilon=0.05, source=stranger)
    assert int(same.broken.sum()) > int(other.broken.sum())
    with torch.no_grad():
        predicted = conv_net(other.adversarial).argmax(dim=1)
    assert torch.equal(other.robust, predicted == labels)
    assert other.trace is None
    assert all(parameter.requires_grad for parameter in stranger.parameters())
    with pytest.raises(ModelError, match=r"source: expected logits \(N, 4\)"):
        attack(conv_net, images, labels, attack=Transfer(), source=nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))


class Noisy(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x + 0.3 * torch.randn_like(x))


def test_averaging_finds_the_gradient_under_the_noise(linear, near_grey):
    images, labels = near_grey
    noisy = Noisy(linear)
    torch.manual_seed(0)
    asked = attack(noisy, images, labels, attack=PGD(steps=2, random_start=False), epsilon=1e-6, eot_samples=20)
    assert asked.counts.gradients * 20 == asked.counts.backwards
    with pytest.raises(OptionError, match="eot_samples: expected at least 1, got 0"):
        attack(noisy, images, labels, eot_samples=0)


def test_patience_is_the_binomial_bound():
    patience = EarlyStoppingByYield(0.01, n=1000)
    assert not patience.should_stop(11)  # no attempt yet: every one of them may break
    patience.update(attempts=100, broken=3)
    assert patience.failures == 0
    patience.update(attempts=150, broken=0)
    patience.update(attempts=149, broken=0)
    assert patience.failures == 299
    # The largest p for which 299 failures in a row still have probability 5 %.
    assert (1 - patience.success_rate_bound()) ** 299 == pytest.approx(0.05)
    assert patience.should_stop(1000)
    assert not patience.should_stop(1010)


def test_patience_asks_of_a_small_set_no_more_than_three_rounds():
    patience = EarlyStoppingByYield(0.002, n=40)  # 0.08 samples
    patience.update(attempts=53, broken=0)
    assert not patience.should_stop(18)
    patience.update(attempts=1, broken=0)
    assert patience.should_stop(18)
    assert not patience.should_stop(19)
    assert not EarlyStoppingByYield(0.002, n=40).should_stop(1)  # a single one is attacked as well
    # Where the tolerance is a sample or more, it ends earlier.
    assert EarlyStoppingByYield(0.002, n=1000, failures=2 * 330).should_stop(330)


def test_adaptive_reaches_the_ensemble_and_stops_by_its_rule(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    whole = attack(conv_net, images, labels, attack=StandardAttack(steps=20, queries=300), epsilon=0.02)
    options = AdaptiveAttack(steps=20, queries=300, short_queries=50, tolerance=0.05)
    quick = attack(conv_net, images, labels, attack=options, epsilon=0.02)
    assert abs(int(whole.broken.sum()) - int(quick.broken.sum())) <= 2
    assert quick.methods[:4] == ("apgd-ce", "apgd-t", "square", "fab-t")
    everything = attack(conv_net, images, labels, attack=options.model_copy(update={"tolerance": 1e-9}), epsilon=0.02)
    assert len(everything.methods) > len(quick.methods)
    assert quick.counts.forwards < everything.counts.forwards
