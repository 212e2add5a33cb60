from __future__ import annotations

import math
import re
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.attacks.engine import attack
from assay.attacks.methods import list_attacks
from assay.errors import ModelError, OptionError
from assay.views.attack import ATTACKS, AttackChoice, attack_picture, find_smallest_perturbation
from assay.views.context import Limits, OutOfTimeError, ViewContext
from assay.views.picture import predict_picture, sample_at
from assay.wording import epsilon_option

PATIENT = Limits(seconds=200)  # the first image operation on a machine compiles its kernels


def test_probabilities_loss_and_gradient_are_those_of_plain_torch(network_context):
    picture = sample_at(network_context.dataset, 3)
    seen = predict_picture(network_context, picture)
    x = (picture.image[None] / 255).requires_grad_()
    loss = F.cross_entropy(network_context.model(x), torch.tensor([picture.label]))
    loss.backward()
    torch.testing.assert_close(torch.tensor(seen.probabilities), network_context.model(x)[0].softmax(dim=0).detach())
    assert seen.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert seen.gradient.gradient_norm == pytest.approx(float(x.grad.norm()), rel=1e-5)
    assert seen.predicted == picture.label


def test_a_picture_without_a_label_is_taken_for_what_the_model_says(network_context):
    picture = sample_at(network_context.dataset, 3)
    assert predict_picture(network_context, replace(picture, label=None)).label == picture.label
    assert predict_picture(network_context, picture.with_label(1, name="dog")).label == 1


def test_a_model_without_finite_answers_is_named(network_context):
    with torch.no_grad():
        network_context.model[4].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="expected finite logits"):
        predict_picture(network_context, sample_at(network_context.dataset, 0))


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_the_smallest_change_is_the_distance_to_a_linear_boundary(linear_context, norm, dual):
    for place in range(4):
        picture = sample_at(linear_context.dataset, place)
        score = float(linear_context.model(picture.image[None] / 255)[0, 1].detach())
        distance = abs(score) / float(linear_context.model.w.detach().norm(dual))
        found = find_smallest_perturbation(linear_context, picture, norm=norm)
        assert found.success
        assert found.distance == pytest.approx(distance, rel=0.03)
        assert found.distance >= distance * (1 - 1e-5)
        assert found.words == ("--smallest", "--norm", norm)


def test_the_smallest_change_is_not_looked_for_under_l1(linear_context):
    with pytest.raises(OptionError, match="norm: expected one of linf, l2, for the smallest change, got l1"):
        find_smallest_perturbation(linear_context, sample_at(linear_context.dataset, 0), norm="l1")


def test_an_attack_breaks_just_beyond_that_distance_and_holds_just_before(linear_context):
    picture = sample_at(linear_context.dataset, 0)
    distance = find_smallest_perturbation(linear_context, picture).distance
    assert attack_picture(linear_context, picture, AttackChoice(epsilon=1.05 * distance)).success
    held = attack_picture(linear_context, picture, AttackChoice(epsilon=0.9 * distance))
    assert not held.success
    assert held.distance is None
    assert held.moved == pytest.approx(0.9 * distance, rel=1e-5)  # of a linear model the best lies on the border
    direction = linear_context.model.w.detach().sign() * (1 - 2 * picture.label)
    torch.testing.assert_close(held.adversarial, picture.image / 255 + 0.9 * distance * direction, rtol=0, atol=1e-6)


HELD = re.compile(r"Held: the best attempt of (\S+) within L∞ 2/255 lowered (\S+) from (\S+)\s% to (\S+)\s%\.")


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "apgd-t", "square", "noise"])
def test_of_an_attack_that_failed_the_least_likely_of_all_it_tried_is_shown(network_context, name):
    with torch.no_grad():
        network_context.model[4].weight.mul_(0.1)  # so that nothing breaks
    picture = sample_at(network_context.dataset, 1)
    label = int(network_context.model.eval()(picture.image[None] / 255).argmax())
    picture = picture.with_label(label, name=network_context.classes[label])
    tried: list[float] = []
    choice = AttackChoice(attack=name, epsilon=2 / 255, steps=4)

    def note(_, images, __):
        assert float((images - picture.image / 255).abs().max()) <= 2 / 255 + 1e-6
        tried.append(float(network_context.model(images)[0].softmax(dim=0)[label]))

    with network_context.exclusive_model() as model:
        data = picture.as_dataset(network_context.classes, label=label)
        options = {"attack": choice.prepare(), "epsilon": choice.epsilon, "ids": data.ids}
        attack(model, data.images / 255, data.labels, on_iterate=note, **options)
    held = attack_picture(network_context, picture, choice, limits=PATIENT)
    assert not held.success
    assert len(tried) > 1
    assert held.after[label] == pytest.approx(min(tried), rel=1e-5)
    said = network_context.model(held.adversarial[None])[0].softmax(dim=0)
    torch.testing.assert_close(torch.tensor(held.after), said.detach(), rtol=1e-4, atol=1e-6)
    told = HELD.fullmatch(held.headline)
    assert told, held.headline
    assert told[1] == name
    assert float(told[4]) < float(told[3])


def test_what_no_attempt_lowered_is_said(linear_context):
    held = attack_picture(linear_context, sample_at(linear_context.dataset, 0), AttackChoice(epsilon=0.0))
    assert "the best attempt of pgd within L∞ 0 did not lower" in held.headline
    assert held.moved == 0


def test_a_saturated_answer_is_told_by_its_loss(linear_context):
    picture = sample_at(linear_context.dataset, 0)
    with torch.no_grad():
        score = float(linear_context.model(picture.image[None] / 255)[0, 1])
        for parameter in linear_context.model.parameters():
            parameter.mul_(25 / abs(score))
    held = attack_picture(linear_context, picture, AttackChoice(epsilon=0.5 / 255))
    assert "raised the loss of" in held.headline
    first, last = map(float, re.findall(r"([\d.]+e-\d+)", held.headline))
    assert first == pytest.approx(float(torch.tensor(-25.0, dtype=torch.float64).exp()), rel=0.05)
    assert first < last


def test_an_attack_without_a_ball_shows_what_it_ended_with(network_context):
    with torch.no_grad():
        network_context.model[4].weight.mul_(0.1)
    picture = sample_at(network_context.dataset, 1)
    label = int(network_context.model.eval()(picture.image[None] / 255).argmax())
    picture = picture.with_label(label, name=network_context.classes[label])
    held = attack_picture(network_context, picture, AttackChoice(attack="signed-steps", epsilon=1 / 255, steps=3))
    assert "the last image of signed-steps with steps of 1/255 lowered" in held.headline
    assert held.moved == pytest.approx(3 / 255, rel=1e-4)
    assert held.losses[-1] == pytest.approx(-math.log(held.after[label]), rel=1e-4)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_offered_attack_answers_and_what_it_finds_is_real(network_context, name):
    picture = sample_at(network_context.dataset, 1)
    found = attack_picture(
        network_context, picture, AttackChoice(attack=name, epsilon=16 / 255, steps=3), limits=PATIENT
    )
    delta = found.adversarial - picture.image / 255
    assert len(found.before) == len(found.after) == 4
    if found.success:
        said = network_context.model(found.adversarial[None])[0].softmax(dim=0)
        assert int(said.argmax()) != picture.label
        torch.testing.assert_close(torch.tensor(found.after), said.detach(), rtol=1e-4, atol=1e-6)
        assert found.distance == pytest.approx(float(delta.abs().max()), abs=1e-6)
    if list_attacks()[name].options.constrained:
        assert float(delta.abs().max()) <= 16 / 255 + 1e-6
    assert 0 <= float(found.perturbation.min()) <= float(found.perturbation.max()) <= 1


def test_a_picture_that_is_wrong_already_is_told_apart(network_context):
    picture = sample_at(network_context.dataset, 0)
    other = (picture.label + 1) % 4
    found = attack_picture(network_context, picture.with_label(other, name="other"), AttackChoice())
    assert found.misclassified
    assert not found.success


def test_the_model_is_left_as_it_was(network_context):
    network_context.model.train()
    before = {name: value.clone() for name, value in network_context.model.state_dict().items()}
    predict_picture(network_context, sample_at(network_context.dataset, 0))
    attack_picture(network_context, sample_at(network_context.dataset, 0), AttackChoice())
    assert all(torch.equal(value, before[name]) for name, value in network_context.model.state_dict().items())
    assert network_context.model.training
    assert all(p.requires_grad and p.grad is None for p in network_context.model.parameters())


def test_two_at_once_take_turns_and_leave_the_model_as_it_was(network_context):
    pictures = [sample_at(network_context.dataset, i) for i in range(6)]
    one_by_one = [attack_picture(network_context, picture, AttackChoice()) for picture in pictures]
    together: list[object] = [None] * 6

    def run(i: int) -> None:
        together[i] = attack_picture(network_context, pictures[i], AttackChoice())

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(one_by_one, together, strict=True):
        assert torch.equal(one.adversarial, other.adversarial)
        assert one.after == other.after
    assert all(p.requires_grad for p in network_context.model.parameters())


class Slow(nn.Module):
    """Never fooled: its logits do not depend on the image."""

    def forward(self, x):
        return torch.stack([x.sum(dim=(1, 2, 3)) * 0 + 1, x.sum(dim=(1, 2, 3)) * 0], dim=1)


def test_an_attack_that_takes_too_long_is_stopped_and_says_so(linear_context):
    context = ViewContext(Slow(), linear_context.dataset)
    picture = sample_at(linear_context.dataset, 0).with_label(0, name="no")
    with pytest.raises(OutOfTimeError, match=r"pgd was stopped after 1e-09 s, without success so far; try fewer steps"):
        attack_picture(context, picture, AttackChoice(), limits=Limits(seconds=1e-9))
    with pytest.raises(OptionError, match="steps: expected at most 5, got 6"):
        attack_picture(context, picture, AttackChoice(steps=6), limits=Limits(steps=5))


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
def test_wrong_choices_are_named(linear_context, values, message):
    with pytest.raises(OptionError, match=message):
        attack_picture(linear_context, sample_at(linear_context.dataset, 0), AttackChoice.parse(values))


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
