"""Image operations, attacks of other libraries, transfer, averaged gradients, and the adaptive ensemble."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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


def test_an_attack_of_another_library_is_verified_like_ours(linear, near_grey):
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


def test_an_external_attack_that_returns_another_shape_is_named(linear, near_grey):
    with pytest.raises(ModelError, match=r"odd\(images, labels\): expected images \(64, 3, 4, 4\), got \(64, 3\)"):
        attack(linear, *near_grey, attack=External(perturb=lambda x, y: x[:, :, 0, 0], label="odd"))


def test_transfer_attacks_the_source_and_is_verified_on_the_model(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    same = attack(conv_net, images, labels, attack=Transfer(), epsilon=0.05, source=conv_net)
    torch.manual_seed(9)
    unrelated = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    other = attack(conv_net, images, labels, attack=Transfer(), epsilon=0.05, source=unrelated)
    assert int(same.broken.sum()) > int(other.broken.sum())
    with torch.no_grad():
        predicted = conv_net(other.adversarial).argmax(dim=1)
    assert torch.equal(other.robust, predicted == labels)
    assert other.trace is None
    assert all(parameter.requires_grad for parameter in unrelated.parameters())
    with pytest.raises(ModelError, match=r"source: expected logits \(N, 4\)"):
        attack(conv_net, images, labels, attack=Transfer(), source=nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))


class NoisyGradient(nn.Module):
    """Adds ⟨n, x − x₀⟩, n random and x₀ mid-grey, to one logit: the gradient is the model's plus noise of any size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        noise = 4.0 * torch.randn_like(x)
        return self.model(x) + torch.stack([0 * x[:, 0, 0, 0], ((x - x.detach()) * noise).flatten(1).sum(dim=1)], dim=1)


def test_averaging_finds_the_gradient_under_the_noise(linear, near_grey):
    images, labels = near_grey
    torch.manual_seed(0)

    def broken(model, eot_samples):
        options = PGD(steps=1, random_start=False)
        return attack(model, images, labels, attack=options, epsilon=0.05, eot_samples=eot_samples)

    known, one, many = broken(linear, 1), broken(NoisyGradient(linear), 1), broken(NoisyGradient(linear), 200)
    assert int(one.broken.sum()) < int(many.broken.sum()) - 5
    assert int(many.broken.sum()) >= int(known.broken.sum()) - 3
    assert many.counts.gradients * 200 == many.counts.backwards
    with pytest.raises(OptionError, match="eot_samples: expected at least 1, got 0"):
        broken(linear, 0)


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
