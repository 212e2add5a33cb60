"""APGD, FAB, Square and FMN: closed forms, exact answers by enumeration, and the ensemble."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from assay.attacks.batch import ModelOutput, Samples
from assay.attacks.engine import attack
from assay.attacks.measure import measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.methods.apgd import APGD, APGDT, ApgdL1Method, ApgdMethod, _sparse
from assay.attacks.methods.ensembles import StandardAttack
from assay.attacks.methods.fab import FAB
from assay.attacks.methods.gradient import PGD, Noise
from assay.attacks.methods.minimum_norm import MinimumNorm
from assay.attacks.methods.square import Square, SquareLpMethod
from assay.attacks.threat import GEOMETRIES, Threat


def boundary_distances(linear, images, norm):
    score = ((images * linear.w).flatten(1).sum(dim=1) + linear.b).abs()
    return (score / GEOMETRIES[norm].dual(linear.w[None])).detach()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("options", [FAB(steps=12), MinimumNorm(steps=100)], ids=["fab", "fmn"])
def test_nearest_images_of_a_linear_model_lie_on_its_boundary(linear, near_grey, norm, options):
    images, labels = near_grey
    distances = boundary_distances(linear, images, norm)
    result = attack(linear, images, labels, attack=options, norm=norm, epsilon=distances * 1.03 + 1e-5)
    assert result.broken.all()
    impossible = attack(linear, images, labels, attack=options, norm=norm, epsilon=distances * 0.99)
    assert not impossible.broken.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_minimal_epsilons_of_a_linear_model(linear, near_grey, norm):
    images, labels = near_grey
    distances = boundary_distances(linear, images, norm).double()
    result = attack(linear, images, labels, attack=MinimumNorm(steps=100), norm=norm, epsilon=1.0)
    assert (result.distances >= distances * 0.9999).all()
    assert float((result.distances / distances).median()) < 1.01


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("options", [APGD(steps=20), APGDT(steps=20)], ids=["ce", "t"])
def test_apgd_breaks_a_linear_model_exactly_within_its_distance(linear, near_grey, norm, options):
    images, labels = near_grey
    distances = boundary_distances(linear, images, norm)
    epsilon = float(distances.median())
    result = attack(linear, images, labels, attack=options, norm=norm, epsilon=epsilon)
    sure = (distances - epsilon).abs() > 1e-3 * epsilon
    assert torch.equal(result.broken[sure], (distances < epsilon)[sure])
    # Two classes are too few for a ratio of four logits: the margin instead, with a note.
    assert bool(result.notes) == (options.name == "apgd-t")


@pytest.mark.parametrize(("norm", "within"), [("linf", 0.85), ("l2", 0.45)])
def test_square_breaks_what_lies_well_within_reach(linear, near_grey, norm, within):
    images, labels = near_grey
    distances = boundary_distances(linear, images, norm)
    epsilon = float(distances.quantile(0.7))
    result = attack(linear, images, labels, attack=Square(queries=300), norm=norm, epsilon=epsilon)
    assert int((distances < within * epsilon).sum()) > 10
    assert result.broken[distances < within * epsilon].all()
    assert not result.broken[distances > 1.0001 * epsilon].any()
    assert result.counts.backwards == 0


def test_the_phases_of_sparse_steps_are_those_of_the_paper():
    assert ApgdL1Method(name="apgd", steps=100)._ends == (30, 60, 100)
    assert ApgdL1Method(name="apgd", steps=1)._ends == (1, 1, 1)
    share = torch.tensor([0.5, 0.0])
    gradient = torch.tensor([[1.0, -4.0, 0.5, 3.0], [1.0, -4.0, 0.5, 3.0]]).reshape(2, 1, 2, 2)
    steps = _sparse(gradient, share).flatten(1)
    assert steps.tolist() == [[0.0, -0.5, 0.0, 0.5], [0.0, -1.0, 0.0, 0.0]]


def test_squares_find_more_than_noise_under_l1(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    squares, noise = (
        attack(conv_net, images, labels, attack=options, norm="l1", epsilon=8.0).broken
        for options in (Square(queries=150), Noise(draws=150))
    )
    assert int(squares.sum()) > int(noise.sum()) + 3


@pytest.mark.parametrize(("norm", "epsilon"), [("l2", 0.3), ("l1", 2.0)])
def test_squares_of_a_length_stay_in_ball_and_box_and_spend_it(norm, epsilon):
    images = torch.rand(5, 3, 9, 12, generator=torch.Generator().manual_seed(2))
    n = torch.arange(5)
    samples = Samples(
        index=n,
        ids=n,
        images=images,
        labels=0 * n,
        epsilon=torch.full((5,), epsilon),
        logits=torch.zeros(5, 2),
        target_class=0 * n - 1,
    )
    method, threat = SquareLpMethod(name="square", steps=50), Threat(norm=norm, epsilon=epsilon)
    batch = method.begin(samples, threat)
    output = ModelOutput(torch.zeros(5, 2), torch.zeros(5), torch.zeros_like(images), torch.zeros(5, dtype=torch.bool))
    seen = []
    for step in range(40):
        assert threat.contains(batch.iterate, images, samples.epsilon).all()
        assert (threat.distance(batch.iterate, images) > 0.6 * epsilon).all()
        seen.append(batch.iterate)
        output.losses = torch.full((5,), float(step))  # everything is an improvement
        batch = method.advance(batch, output, threat)
    changed = (seen[-1] != seen[-2]).any(dim=1).flatten(1).sum(dim=1)
    assert (changed > 0).all()


def test_checkpoints_are_those_of_the_paper():
    periods = ApgdMethod(name="apgd", steps=100)._periods
    assert [step for step, period in enumerate(periods) if period] == [22, 41, 57, 70, 80, 87, 93, 99]


def test_a_checkpoint_without_progress_halves_the_step_and_returns_to_the_best():
    method, threat = ApgdMethod(name="apgd", steps=100), Threat(epsilon=0.1)
    images = torch.full((3, 1, 2, 2), 0.5)
    samples = Samples(
        index=torch.arange(3),
        ids=torch.arange(3),
        images=images,
        labels=torch.zeros(3, dtype=torch.int64),
        epsilon=torch.full((3,), 0.1),
        logits=torch.zeros(3, 2),
        target_class=torch.full((3,), -1),
    )
    batch = method.begin(samples, threat)
    assert torch.allclose((batch.iterate - images).abs().amax(dim=(1, 2, 3)), torch.tensor(0.1))
    batch.step = torch.tensor([22, 22, 21])  # the first checkpoint, for two of them
    batch.rises = torch.tensor([16, 17, 0])  # 0.75 * 22 = 16.5
    batch.best = images + 0.05
    batch.best_loss = torch.full((3,), 2.0)
    batch.best_gradient = torch.full_like(images, -1.0)
    here = batch.iterate.clone()
    gradient = torch.ones_like(images)
    output = ModelOutput(torch.zeros(3, 2), torch.zeros(3), gradient, torch.zeros(3, dtype=torch.bool))
    start, along = method._adapt(batch, output)
    assert torch.equal(start, torch.stack([batch.best[0], here[1], here[2]]))
    assert along.mean(dim=(1, 2, 3)).tolist() == [-1.0, 1.0, 1.0]
    assert batch.step_size.tolist() == pytest.approx([0.1, 0.2, 0.2])
    assert batch.rises.tolist() == [0, 0, 0]
    assert batch.halved.tolist() == [True, False, True]
    # At the next checkpoint the second has risen enough, but its best loss has not moved since: stuck.
    batch.step, batch.rises = torch.tensor([41, 41, 41]), torch.tensor([19, 19, 19])
    method._adapt(batch, output)
    assert batch.step_size.tolist() == pytest.approx([0.1, 0.1, 0.2])


class Relu(nn.Module):
    """A network of two inputs and four hidden units, small enough to enumerate its linear pieces."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.first = nn.Linear(2, 4)
        self.second = nn.Linear(4, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            # Half of the square belongs to each class.
            logits = self(torch.rand(1000, 1, 1, 2, generator=generator))
            self.second.bias[0] += (logits[:, 1] - logits[:, 0]).median()

    def forward(self, x):
        return self.second(self.first(x.flatten(1)).relu())


def exact_linf_distance(net: Relu, x: np.ndarray, label: int) -> float:
    """min ‖δ‖∞ such that the other class wins: one linear programme for each pattern of active units."""
    w, b = net.first.weight.detach().double().numpy(), net.first.bias.detach().double().numpy()
    v, c = net.second.weight.detach().double().numpy(), net.second.bias.detach().double().numpy()
    best = np.inf
    for pattern in itertools.product([0.0, 1.0], repeat=4):
        on = np.array(pattern)
        margin_w = (v[1 - label] - v[label]) @ (on[:, None] * w)
        margin_b = (v[1 - label] - v[label]) @ (on * b) + c[1 - label] - c[label]
        sign = np.where(on == 1, -1.0, 1.0)  # on: w z + b >= 0; off: <= 0
        rows = [*(sign[i] * np.r_[w[i], 0.0] for i in range(4)), np.r_[-margin_w, 0.0]]
        limits = [*(-sign[i] * b[i] for i in range(4)), margin_b]
        for i in range(2):  # |z_i - x_i| <= t
            for s in (1.0, -1.0):
                row = np.zeros(3)
                row[i], row[2] = s, -1.0
                rows.append(row)
                limits.append(s * x[i])
        found = linprog([0, 0, 1], np.array(rows), np.array(limits), bounds=[(0, 1), (0, 1), (0, None)])
        if found.success:
            best = min(best, found.fun)
    return float(best)


def test_a_small_network_is_broken_exactly_where_enumeration_says():
    net = Relu().eval()
    images = torch.rand(24, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = net(images).argmax(dim=1)
    exact = torch.tensor(
        [exact_linf_distance(net, x.double().numpy().ravel(), int(y)) for x, y in zip(images, labels, strict=True)]
    )
    reachable = exact.isfinite()
    assert int(reachable.sum()) > 6
    minimal = attack(net, images, labels, attack=MinimumNorm(steps=200), epsilon=1.0)
    assert (minimal.distances >= exact - 1e-6).all()
    close = (minimal.distances <= exact * 1.05 + 1e-3)[reachable]
    assert close.float().mean() > 0.9
    epsilon = float(exact[reachable].median()) * 1.001
    found = attack(net, images, labels, attack=StandardAttack(queries=400), epsilon=epsilon)
    assert torch.equal(found.broken, exact < epsilon)


def test_the_ensemble_contains_its_members(conv_net, small_set):
    options = StandardAttack(steps=20, n_target_classes=3, queries=100)
    whole = measure_robust_accuracy(conv_net, small_set, attack=options, epsilon=0.03).result
    alone = measure_robust_accuracy(conv_net, small_set, attack=APGD(steps=20), epsilon=0.03).result
    assert (whole.broken | ~alone.broken).all()
    assert whole.methods == ("apgd-ce",) + ("apgd-t",) * 3 + ("fab-t",) * 3 + ("square",)
    assert set(whole.broken_by[whole.broken].tolist()) <= set(range(8))
    assert (whole.broken_by[~whole.broken] == -1).all()


def test_sparse_steps_find_far_more_than_projected_ones_under_l1(conv_net, small_set):
    images, labels = small_set.images.float() / 255, small_set.labels
    found = {
        options.name: int(attack(conv_net, images, labels, attack=options, norm="l1", epsilon=4.0).broken.sum())
        for options in (APGD(steps=30), PGD(steps=30))
    }
    assert found["apgd-ce"] > found["pgd"] + 10


def test_under_l1_the_ensemble_has_its_own_budget(conv_net, small_set):
    options = StandardAttack(steps=4, queries=5)
    result = measure_robust_accuracy(conv_net, small_set, attack=options, norm="l1", epsilon=0.5).result
    assert result.methods == ("apgd-ce",) * 5 + ("apgd-t",) * 3 + ("fab-t",) * 3 + ("square",)


def test_iterates_of_fab_outside_the_ball_are_not_counted_as_faults(conv_net, small_set):
    result = measure_robust_accuracy(conv_net, small_set, attack=FAB(steps=10), epsilon=0.01).result
    assert result.counts.outside_ball == 0
    assert (result.distances[result.broken] <= 0.01 + 1e-6).all()


def test_the_curve_from_one_run_is_at_least_as_strong_as_pgd(conv_net, small_set):
    epsilons = (0.01, 0.02, 0.04, 0.08)
    one_run = measure_epsilon_curve(conv_net, small_set, epsilons=epsilons, attack="min-norm", steps=60)
    by_pgd = measure_epsilon_curve(conv_net, small_set, epsilons=epsilons, attack="pgd", steps=40)
    assert one_run.points[0].correct == 44
    for nearest, pgd in zip(one_run.points, by_pgd.points, strict=True):
        assert nearest.correct <= pgd.correct + 1
