"""The engine: closed forms, verification, the user's model, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.attacks.engine import attack
from assay.attacks.methods.gradient import FGSM, PGD, SignedSteps
from assay.attacks.threat import GEOMETRIES
from assay.errors import DataError, ModelError, OptionError
from assay.runtime import hooked


def boundary_distances(linear, images, norm):
    score = ((images * linear.w).flatten(1).sum(dim=1) + linear.b).abs()
    return (score / GEOMETRIES[norm].dual(linear.w[None])).detach()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "options", [FGSM(), PGD(steps=5, random_start=False), PGD(steps=10)], ids=["fgsm", "pgd", "start"]
)
def test_a_linear_model_breaks_exactly_within_its_distance(linear, near_grey, norm, options):
    images, labels = near_grey
    distances = boundary_distances(linear, images, norm)
    epsilon = float(distances.median())
    result = attack(linear, images, labels, attack=options, norm=norm, epsilon=epsilon)
    sure = (distances - epsilon).abs() > 1e-4 * epsilon  # float32 cannot tell the median itself
    assert result.clean_correct.all()
    assert torch.equal(result.broken[sure], (distances < epsilon)[sure])


def test_the_strongest_l1_step_is_found_by_pgd(linear, near_grey):
    images, labels = near_grey
    distances = boundary_distances(linear, images, "l1")
    result = attack(linear, images, labels, attack=PGD(steps=50), norm="l1", epsilon=float(distances.median()))
    assert result.broken[distances < 0.5 * distances.median()].all()
    assert not result.broken[distances > 1.001 * distances.median()].any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_is_written_down_is_in_the_ball_and_fools_the_untouched_model(conv_net, small_set, norm):
    images = small_set.images.float() / 255
    epsilon = {"linf": 0.05, "l2": 0.6, "l1": 6.0}[norm]
    result = attack(conv_net, images, small_set.labels, attack=PGD(steps=10), norm=norm, epsilon=epsilon)
    assert 5 < int(result.broken.sum()) < 48
    delta = result.adversarial.double() - images.double()
    distances = GEOMETRIES[norm].distance(delta)
    assert (distances <= epsilon + 1e-5).all()
    assert torch.allclose(distances[result.broken], result.distances[result.broken])
    assert float(result.adversarial.min()) >= 0
    assert float(result.adversarial.max()) <= 1
    with torch.no_grad():
        predicted = conv_net(result.adversarial).argmax(dim=1)
    assert (predicted[result.broken] != small_set.labels[result.broken]).all()
    assert torch.equal(result.robust, predicted == small_set.labels)
    assert not (result.broken & ~result.clean_correct).any()


def test_batch_size_refilling_and_order_change_nothing(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    whole = attack(conv_net, images, labels, attack=PGD(steps=6), epsilon=0.03, seed=3)
    small = attack(conv_net, images, labels, attack=PGD(steps=6), epsilon=0.03, seed=3, batch_size=8)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    shuffled = attack(conv_net, images[order], labels[order], attack=PGD(steps=6), epsilon=0.03, seed=3, ids=order)
    for other, rows in ((small, torch.arange(48)), (shuffled, order)):
        assert torch.equal(other.broken, whole.broken[rows])
        assert torch.equal(other.steps, whole.steps[rows])
        assert torch.allclose(other.adversarial, whole.adversarial[rows], atol=1e-6)


def test_the_model_is_left_as_it_was_found(conv_net, small_set, fingerprint):
    conv_net.train()
    conv_net[0].weight.requires_grad_(False)
    conv_net[3].weight.grad = torch.ones_like(conv_net[3].weight)
    before, drawn = fingerprint(conv_net), torch.get_rng_state()
    attack(conv_net, small_set.images.float() / 255, small_set.labels, attack="pgd")
    after = fingerprint(conv_net)
    assert len(before) == len(after)
    for was, now in zip(before, after, strict=True):
        assert torch.equal(was, now) if isinstance(was, torch.Tensor) else was == now
    assert torch.equal(drawn, torch.get_rng_state())


def test_the_model_is_restored_even_when_it_fails(conv_net, small_set, fingerprint):
    calls = []

    def fail_late(module, inputs):
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError("out of luck")

    before = fingerprint(conv_net.train())
    handle = conv_net.register_forward_pre_hook(fail_late)
    with pytest.raises(ModelError, match="out of luck"):
        attack(conv_net, small_set.images.float() / 255, small_set.labels, attack=PGD(steps=50), epsilon=1e-4)
    handle.remove()
    for was, now in zip(before, fingerprint(conv_net), strict=True):
        assert torch.equal(was, now) if isinstance(was, torch.Tensor) else was == now


def test_signed_steps_are_the_textbook_loop(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    x, losses = images.clone(), []
    for _ in range(5):
        x.requires_grad_()
        loss = F.cross_entropy(conv_net(x), labels)
        losses.append(loss.item())
        x = (x + 0.01 * torch.autograd.grad(loss, x)[0].sign()).detach()
    losses.append(F.cross_entropy(conv_net(x), labels).item())
    result = attack(conv_net, images, labels, attack=SignedSteps(), epsilon=0.01, batch_size=16)
    assert result.trace is not None
    assert result.trace.losses.mean(dim=0).tolist() == pytest.approx(losses, rel=1e-4)
    assert torch.allclose(result.adversarial, x.clamp(0, 1), atol=1e-6)
    with torch.no_grad():
        assert torch.equal(result.robust, conv_net(x.clamp(0, 1)).argmax(dim=1) == labels)


def test_more_restarts_never_lose_a_broken_sample(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    one = attack(conv_net, images, labels, attack=PGD(steps=3), epsilon=0.02)
    four = attack(conv_net, images, labels, attack=PGD(steps=3, restarts=4), epsilon=0.02)
    assert (four.broken | ~one.broken).all()
    assert four.methods == ("pgd",) * 4


def test_an_epsilon_for_each_sample(linear, near_grey):
    images, labels = near_grey
    distances = boundary_distances(linear, images, "linf")
    factor = torch.where(torch.arange(64) % 2 == 0, 1.01, 0.99)
    result = attack(linear, images, labels, attack="fgsm", epsilon=distances * factor)
    assert torch.equal(result.broken, factor > 1)


def test_other_pixel_bounds(linear, near_grey):
    images, labels = near_grey
    far = attack(linear, images * 10 - 5, labels, attack="noise", epsilon=8.0, bounds=(-5.0, 5.0))
    assert float(far.adversarial.abs().max()) <= 5
    assert float(far.adversarial.abs().max()) > 1


def test_epsilon_zero_breaks_nothing(conv_net, small_set):
    result = attack(conv_net, small_set.images.float() / 255, small_set.labels, attack="pgd", epsilon=0.0)
    assert not result.broken.any()


def test_a_success_that_the_untouched_model_does_not_confirm_is_counted_and_dropped(linear, near_grey, monkeypatch):
    from assay.attacks.network import Network

    images, labels = near_grey
    clean = linear(images).detach()

    def constant(network, images):
        return clean[labels == 1][:1].expand(len(images), -1)  # it always predicts class 1

    monkeypatch.setattr(Network, "verify", constant)
    twice = PGD(steps=2, random_start=False)  # of the second image the untouched model alone decides
    result = attack(linear, images, labels, attack=twice, epsilon=1.0, clean_logits=clean)
    assert not result.broken[labels == 1].any()
    assert result.counts.unconfirmed == int((labels == 1).sum())


@pytest.mark.parametrize(("epsilon", "broken"), [(1.0, True), (1e-6, False)])
def test_one_step_costs_one_gradient_and_one_judgement_of_each_image(linear, near_grey, epsilon, broken):
    images, labels = near_grey
    clean, passed = linear(images).detach(), {True: 0, False: 0}

    def count(module, args):
        passed[args[0].requires_grad] += len(args[0])

    with hooked(linear.register_forward_pre_hook(count)):
        result = attack(linear, images, labels, attack="fgsm", epsilon=epsilon, clean_logits=clean)
    assert bool(result.broken.all()) is broken
    assert (result.counts.forwards, result.counts.backwards) == (2 * len(images), len(images))
    assert passed[True] == len(images)
    assert passed[False] <= len(images) + 8  # how the model wants to be called is tried out on a few


def test_the_steps_of_a_search_that_fails_cost_a_gradient_each(linear, near_grey):
    images, labels = near_grey
    result = attack(linear, images, labels, attack=PGD(steps=8), epsilon=1e-6, clean_logits=linear(images).detach())
    assert result.counts.backwards == 8 * len(images)
    assert result.counts.forwards <= (8 + 1 + 1) * len(images)  # one more after the first step, and the last judgement


def test_a_perturbation_outside_the_ball_never_counts(linear, near_grey, monkeypatch):
    from assay.attacks.methods import gradient as gradient_steps

    images, labels = near_grey

    def overshoot(self, batch, output, threat):
        batch.step = batch.step + 1
        batch.iterate = batch.images + 50 * batch.epsilon[:, None, None, None] * threat.geometry.steepest(
            output.gradient
        )
        return batch

    monkeypatch.setattr(gradient_steps.GradientMethod, "advance", overshoot)
    result = attack(linear, images, labels, attack="fgsm", epsilon=0.01)
    assert result.counts.outside_ball > 0
    assert not result.broken.any()


class Detached(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.detach())


class NotALogit(nn.Module):
    def forward(self, x):
        return x


def test_a_model_cut_off_from_its_input_is_noted(linear, near_grey):
    images, labels = near_grey
    result = attack(Detached(linear), images, labels, attack="fgsm", epsilon=0.1)
    assert not result.counts.differentiable
    assert result.counts.zero_gradients == 64


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"images": torch.full((2, 3, 4, 4), 1.5)},
            DataError,
            r"images: expected pixels in \[0.0, 1.0\], got 1.5..1.5",
        ),
        ({"images": torch.zeros(0, 3, 4, 4)}, DataError, "images: expected at least one image"),
        ({"images": torch.zeros(2, 4, 4)}, DataError, r"images: expected .* got torch.float32 \(2, 4, 4\)"),
        ({"images": torch.full((2, 3, 4, 4), torch.nan)}, DataError, "images: expected pixels"),
        ({"labels": None}, DataError, r"labels: expected int64 \(2,\), one for each image, got NoneType"),
        ({"labels": torch.tensor([0, 2])}, DataError, r"labels\[1\]: expected 0..1, got 2"),
        ({"labels": torch.tensor([0.0, 1.0])}, DataError, "labels: expected int64"),
        ({"epsilon": -1.0}, OptionError, "epsilon: expected a finite number of at least 0, in pixel units, got -1.0"),
        ({"epsilon": torch.tensor([0.1, 0.1, 0.1])}, OptionError, "epsilon: expected one number, or one for each of 2"),
        ({"attack": "deepfool"}, OptionError, "attack: expected one of fgsm, pgd, .*, got 'deepfool'"),
        ({"batch_size": 0}, OptionError, "batch_size: expected at least 1, got 0"),
        ({"model": NotALogit()}, ModelError, "model output: expected one tensor of logits"),
        ({"images": torch.rand(2, 3, 5, 5)}, ModelError, r"model\(images\): expected a model that takes images"),
    ],
    ids=lambda value: None if not isinstance(value, dict) else "-".join(value),
)
def test_bad_input_is_one_clear_line(linear, change, error, message):
    given = {"model": linear, "images": torch.rand(2, 3, 4, 4), "labels": torch.tensor([0, 1]), **change}
    model, images, labels = given.pop("model"), given.pop("images"), given.pop("labels")
    with pytest.raises(error, match=message) as caught:
        attack(model, images, labels, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"step_size": 0.0}, {"steps": 0}, {"restarts": 0}, {"loss": "hinge"}, {"stepz": 3}]
)
def test_bad_options_name_the_field(options):
    (name,) = options
    from assay.attacks.methods import find_attack

    with pytest.raises(OptionError, match=f"pgd: {name}: expected "):
        find_attack("pgd", options)


class Wave(nn.Module):
    """The true class wins everywhere, by a margin that is smallest in the middle of a valley."""

    def forward(self, x):
        away = (x - 0.5).abs().flatten(1).sum(dim=1)
        return torch.stack([1 + away, torch.zeros_like(away)], dim=1)


def test_steps_that_go_round_in_circles_end():
    images = torch.full((3, 1, 2, 2), 0.5 + 1 / 64)
    images[1] = 0.5 + 3 / 64  # exact in binary, so that the steps of 1/32 come back exactly
    labels = torch.zeros(3, dtype=torch.int64)
    options = PGD(steps=50, step_size=1 / 32, random_start=False)
    result = attack(Wave(), images, labels, attack=options, epsilon=0.25)
    assert not result.broken.any()
    assert result.counts.gradients < 3 * 6
    random = attack(Wave(), images, labels, attack=PGD(steps=50, step_size=1 / 33, momentum=0.9), epsilon=0.25)
    assert random.counts.gradients == 150


def test_fingerprints_tell_images_apart():
    from assay.attacks.methods.gradient import fingerprints

    images = torch.rand(50, 3, 4, 4)
    changed = images.clone()
    changed[:, 1, 2, 3] = torch.nextafter(changed[:, 1, 2, 3], torch.tensor(2.0))
    swapped = images.flip(3)
    marks = torch.cat([fingerprints(images), fingerprints(changed), fingerprints(swapped)])
    assert len(marks.unique()) == 150
    assert torch.equal(fingerprints(images), fingerprints(images.clone()))


class Squeezing(nn.Module):
    """Loses the batch dimension of a single image, a common mistake."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).squeeze(0)


class NeedsTwo(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        if len(x) == 1:
            raise ValueError("expected more than 1 value per channel")
        return self.model(x)


@pytest.mark.parametrize("wrap", [Squeezing, NeedsTwo])
def test_a_model_that_fails_on_one_image_is_given_several_with_a_note(conv_net, small_set, wrap):
    images, labels = small_set.images[:33].float() / 255, small_set.labels[:33]
    plain = attack(conv_net, images, labels, attack=PGD(steps=3), epsilon=0.02, batch_size=16)
    wrapped = attack(wrap(conv_net).eval(), images, labels, attack=PGD(steps=3), epsilon=0.02, batch_size=16)
    assert torch.equal(plain.broken, wrapped.broken)
    assert plain.notes == ()
    assert wrapped.notes == ("the model fails on small batches: rows were repeated up to 8",)


def test_parameters_are_frozen_while_the_attack_runs(conv_net, small_set):
    seen = []
    handle = conv_net.register_forward_hook(
        lambda module, inputs, output: seen.append(any(p.requires_grad for p in module.parameters()))
    )
    attack(conv_net, small_set.images.float() / 255, small_set.labels, attack="fgsm", epsilon=0.02)
    handle.remove()
    assert seen
    assert not any(seen)
    assert all(p.requires_grad for p in conv_net.parameters())


def test_a_class_in_the_place_of_options_is_one_clear_line(conv_net):
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(
        OptionError, match=r"attack: expected a name, or options such as PGD\(steps=20\), got the class PGD"
    ):
        attack(conv_net, images, labels, attack=PGD)  # type: ignore[arg-type]
