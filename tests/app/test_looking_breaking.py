from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.attacks.methods import list_attacks
from assay.errors import ModelError, OptionError
from assay.views.breaking import OFFERED, AttackChoice, break_picture, find_smallest
from assay.views.looking import look
from assay.views.picture import sample_at
from assay.views.subject import Limits, OutOfTimeError, Subject
from assay.wording import epsilon_option

PATIENT = Limits(seconds=200)  # the first image operation on a machine compiles its kernels


def test_probabilities_loss_and_gradient_are_those_of_plain_torch(network):
    picture = sample_at(network.dataset, 3)
    seen = look(network, picture)
    x = (picture.image[None] / 255).requires_grad_()
    loss = F.cross_entropy(network.model(x), torch.tensor([picture.label]))
    loss.backward()
    torch.testing.assert_close(torch.tensor(seen.probabilities), network.model(x)[0].softmax(dim=0).detach())
    assert seen.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert seen.gradient.gradient_norm == pytest.approx(float(x.grad.norm()), rel=1e-5)
    assert seen.prediction == picture.label


def test_a_picture_without_a_label_is_taken_for_what_the_model_says(network):
    picture = sample_at(network.dataset, 3)
    assert look(network, replace(picture, label=None)).target == picture.label
    assert look(network, picture.under(1, name="dog")).target == 1


def test_a_model_without_finite_answers_is_named(network):
    with torch.no_grad():
        network.model[4].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="expected finite logits"):
        look(network, sample_at(network.dataset, 0))


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_the_smallest_change_is_the_distance_to_a_linear_boundary(linear, norm, dual):
    for place in range(4):
        picture = sample_at(linear.dataset, place)
        score = float(linear.model(picture.image[None] / 255)[0, 1].detach())
        distance = abs(score) / float(linear.model.w.detach().norm(dual))
        found = find_smallest(linear, picture, norm=norm)
        assert found.broken
        assert found.distance == pytest.approx(distance, rel=0.03)
        assert found.distance >= distance * (1 - 1e-5)
        assert found.words == ("--smallest", "--norm", norm)


def test_the_smallest_change_is_not_looked_for_under_l1(linear):
    with pytest.raises(OptionError, match="norm: expected one of linf, l2, for the smallest change, got l1"):
        find_smallest(linear, sample_at(linear.dataset, 0), norm="l1")


def test_an_attack_breaks_just_beyond_that_distance_and_holds_just_before(linear):
    picture = sample_at(linear.dataset, 0)
    distance = find_smallest(linear, picture).distance
    assert break_picture(linear, picture, AttackChoice(epsilon=1.05 * distance)).broken
    held = break_picture(linear, picture, AttackChoice(epsilon=0.9 * distance))
    assert not held.broken
    assert held.distance is None
    assert torch.equal(held.adversarial, picture.image / 255)
    assert not held.perturbation.sub(0.5).any()


@pytest.mark.parametrize("name", OFFERED)
def test_every_offered_attack_answers_and_what_it_finds_is_real(network, name):
    picture = sample_at(network.dataset, 1)
    found = break_picture(network, picture, AttackChoice(attack=name, epsilon=16 / 255, steps=3), limits=PATIENT)
    delta = found.adversarial - picture.image / 255
    assert len(found.before) == len(found.after) == 4
    if found.broken:
        said = network.model(found.adversarial[None])[0].softmax(dim=0)
        assert int(said.argmax()) != picture.label
        torch.testing.assert_close(torch.tensor(found.after), said.detach(), rtol=1e-4, atol=1e-6)
        assert found.distance == pytest.approx(float(delta.abs().max()), abs=1e-6)
    if list_attacks()[name].options.constrained:
        assert float(delta.abs().max()) <= 16 / 255 + 1e-6
    assert 0 <= float(found.perturbation.min()) <= float(found.perturbation.max()) <= 1


def test_a_picture_that_is_wrong_already_is_told_apart(network):
    picture = sample_at(network.dataset, 0)
    other = (picture.label + 1) % 4
    found = break_picture(network, picture.under(other, name="other"), AttackChoice())
    assert found.already_wrong
    assert not found.broken


def test_the_model_is_left_as_it_was(network):
    network.model.train()
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    look(network, sample_at(network.dataset, 0))
    break_picture(network, sample_at(network.dataset, 0), AttackChoice())
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    assert network.model.training
    assert all(p.requires_grad and p.grad is None for p in network.model.parameters())


def test_two_at_once_take_turns_and_leave_the_model_as_it_was(network):
    alone = [break_picture(network, sample_at(network.dataset, i), AttackChoice()) for i in range(6)]
    together: list[object] = [None] * 6

    def run(i: int) -> None:
        together[i] = break_picture(network, sample_at(network.dataset, i), AttackChoice())

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.adversarial, other.adversarial)
        assert one.after == other.after
    assert all(p.requires_grad for p in network.model.parameters())


class Slow(nn.Module):
    """Never broken, and slower than anybody waits."""

    def forward(self, x):
        return torch.stack([x.sum(dim=(1, 2, 3)) * 0 + 1, x.sum(dim=(1, 2, 3)) * 0], dim=1)


def test_an_attack_that_takes_too_long_is_stopped_and_says_so(linear):
    subject = Subject(Slow(), linear.dataset)
    picture = sample_at(linear.dataset, 0).under(0, name="no")
    with pytest.raises(OutOfTimeError, match=r"pgd was stopped after 1e-09 s: not broken so far; try fewer steps"):
        break_picture(subject, picture, AttackChoice(), limits=Limits(seconds=1e-9))
    with pytest.raises(OptionError, match="steps: expected at most 5, got 6"):
        break_picture(subject, picture, AttackChoice(steps=6), limits=Limits(steps=5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attack": "standard"}, "attack: expected one of fgsm, pgd"),
        ({"norm": "l7"}, "norm: expected 'linf', 'l2' or 'l1', got 'l7'"),
        ({"epsilon": -1}, "epsilon: expected greater than or equal to 0"),
        ({"epsilon": float("nan")}, "epsilon: expected"),
        ({"steps": 0}, "steps: expected greater than or equal to 1"),
    ],
    ids=str,
)
def test_wrong_choices_are_named(linear, values, message):
    with pytest.raises(OptionError, match=message):
        break_picture(linear, sample_at(linear.dataset, 0), AttackChoice.parse(values))


@pytest.mark.parametrize(
    ("epsilon", "norm", "text"),
    [
        (8 / 255, "linf", "8/255"),
        (0.5 / 255, "linf", "0.5/255"),
        (0.3, "linf", "76.5/255"),
        (0.0, "linf", "0/255"),
        (0.0123456, "linf", "0.0123456"),
        (0.5, "l2", "0.5"),
        (12.0, "l1", "12.0"),
    ],
)
def test_sizes_are_spelled_so_that_they_read_back(epsilon, norm, text):
    assert epsilon_option(epsilon, norm) == text
    top, _, bottom = text.partition("/")
    assert float(top) / float(bottom or 1) == epsilon
