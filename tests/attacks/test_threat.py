"""Balls and pixel bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from assay.attacks.threat import GEOMETRIES, Threat
from assay.errors import OptionError
from assay.records.attack import Norm

norms = st.sampled_from(sorted(GEOMETRIES))


@given(norm=norms, seed=st.integers(0, 2**31), epsilon=st.floats(0, 20), scale=st.sampled_from([1e-6, 0.1, 1.0, 50.0]))
@settings(max_examples=150, deadline=None)
def test_projection_lands_in_the_ball_is_idempotent_and_moves_nothing_inside(norm, seed, epsilon, scale):
    generator = torch.Generator().manual_seed(seed)
    delta = scale * torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    radius = torch.full((3,), epsilon, dtype=torch.float64)
    geometry = GEOMETRIES[norm]
    projected = geometry.project(delta, radius)
    assert (geometry.distance(projected) <= radius * (1 + 1e-9) + 1e-12).all()
    assert torch.allclose(geometry.project(projected, radius), projected, rtol=1e-9, atol=1e-12)
    inside = geometry.distance(delta) <= radius
    assert torch.equal(projected[inside], delta[inside])


@pytest.mark.parametrize("norm", sorted(GEOMETRIES))
def test_projection_is_the_nearest_point_of_the_ball(norm):
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    radius = 0.5 * GEOMETRIES[norm].distance(delta)
    projected = GEOMETRIES[norm].project(delta, radius)
    nearest = (projected - delta).flatten(1).norm(dim=1)
    for _ in range(300):
        other = projected + 0.05 * torch.randn(projected.shape, generator=generator, dtype=torch.float64)
        other = GEOMETRIES[norm].project(other, radius)
        assert ((other - delta).flatten(1).norm(dim=1) >= nearest - 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_direction_attains_the_dual_norm(norm):
    gradient = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    geometry = GEOMETRIES[norm]
    direction = geometry.steepest(gradient)
    assert torch.allclose(geometry.distance(direction), torch.ones(4))
    assert torch.allclose((gradient * direction).flatten(1).sum(dim=1), geometry.dual(gradient), rtol=1e-5)


@pytest.mark.parametrize("norm", sorted(GEOMETRIES))
def test_steepest_direction_survives_tiny_gradients_and_is_zero_for_none(norm):
    gradient = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    gradient[1] = 0
    direction = GEOMETRIES[norm].steepest(gradient * 1e-30)
    assert GEOMETRIES[norm].distance(direction).tolist() == pytest.approx([1.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("norm", sorted(GEOMETRIES))
def test_random_points_fill_the_unit_ball_and_belong_to_their_sample(norm):
    ids = torch.arange(400)
    like = torch.zeros(400, 1, 1, 2)
    points = GEOMETRIES[norm].sample(ids, 0, 7, like=like)
    radii = GEOMETRIES[norm].distance(points)
    assert (radii <= 1 + 1e-6).all()
    # In two dimensions the share within radius r of a ball uniform in volume is r².
    assert (radii <= 0.5).float().mean() == pytest.approx(0.25, abs=0.07)
    again = GEOMETRIES[norm].sample(ids[[5, 300]], 0, 7, like=like[:2])
    assert torch.equal(again, points[[5, 300]])
    assert not torch.equal(GEOMETRIES[norm].sample(ids, 1, 7, like=like), points)


@pytest.mark.parametrize("norm", sorted(GEOMETRIES))
def test_membership_allows_float32_storage_and_nothing_more(norm):
    threat = Threat(norm=norm, epsilon=0.05)
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    epsilon = torch.full((64,), 0.05)
    moved = threat.project(images + torch.randn_like(images), images, epsilon)
    assert threat.contains(moved, images, epsilon).all()
    reached = threat.distance(moved, images)
    far = reached > 0.01  # the bounds may leave a sample nearer to its image than float32 can tell 1 % of
    assert far.sum() > 16
    assert not threat.contains(moved, images, 0.99 * reached)[far].any()
    assert not threat.contains(images - 1.0, images, torch.full((64,), 1e6)).any()  # outside the bounds


def test_each_sample_has_its_own_epsilon():
    threat = Threat(norm="linf", epsilon=0.4)
    images = torch.full((3, 1, 2, 2), 0.5)
    moved = threat.project(torch.ones(3, 1, 2, 2), images, torch.tensor([0.0, 0.1, 0.4]))
    assert moved.amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.5, 0.6, 0.9])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -0.1}, "epsilon: expected a finite number of at least 0, in pixel units, got -0.1"),
        ({"epsilon": float("nan")}, "epsilon: expected a finite number of at least 0, in pixel units, got nan"),
        ({"norm": "l7"}, "norm: expected one of linf, l2, l1, got 'l7'"),
        ({"bounds": (1.0, 0.0)}, r"bounds: expected low < high, got \(1.0, 0.0\)"),
    ],
    ids=["negative", "nan", "norm", "bounds"],
)
def test_a_bad_threat_is_one_clear_line(options, message):
    with pytest.raises(OptionError, match=f"^{message}$"):
        Threat(**options)


@given(seed=st.integers(0, 2**31), epsilon=st.floats(0, 4), scale=st.sampled_from([0.01, 0.3, 5.0]))
@settings(max_examples=60, deadline=None)
def test_under_l1_the_nearest_point_of_ball_and_box_together_is_found(seed, epsilon, scale):
    """Its optimality conditions: what moves freely is |δ| − λ, what is at a wall wants to go further by λ at least."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 1, 4, 5, generator=generator, dtype=torch.float64)
    wanted = scale * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    radius = torch.full((3,), epsilon, dtype=torch.float64)
    threat = Threat(norm="l1", epsilon=epsilon)
    found = threat.project(images + wanted, images, radius) - images
    length = threat.geometry.distance(found)
    assert (length <= radius + 1e-9).all()
    assert ((images + found >= 0) & (images + found <= 1)).all()
    assert (found * wanted >= 0).all()
    room = torch.where(wanted > 0, 1 - images, images)
    cut = wanted.abs() - found.abs()  # by the ball where the pixel is free, by at least as much where it is at a wall
    free = (found.abs() > 1e-9) & (found.abs() < room - 1e-9)
    for row in range(3):
        if length[row] < epsilon - 1e-6:  # the ball does not bind
            assert torch.allclose(found[row], torch.minimum(wanted[row].abs(), room[row]) * wanted[row].sign())
        elif bool(free[row].any()):
            threshold = cut[row][free[row]]
            assert float(threshold.max() - threshold.min()) < 1e-6
            at_wall = (found[row].abs() >= room[row] - 1e-9) & (room[row] > 1e-9)
            assert (cut[row][at_wall] >= threshold.min() - 1e-6).all()
            assert (wanted[row].abs()[found[row].abs() <= 1e-9] <= threshold.max() + 1e-6).all() or bool(
                (room[row] <= 1e-9).any()
            )


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_row_has_a_geometry_of_its_own(norm: Norm) -> None:
    """Rows of very different sizes come out as they do alone; none of the last rows decides for the others."""
    geometry = GEOMETRIES[norm]
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 3, 6, 6, generator=g) * torch.tensor([1e-3, 1.0, 30.0, 0.0])[:, None, None, None]
    epsilon = torch.tensor([0.5, 2.0, 7.0, 1.0])
    low, high = -torch.rand(rows.shape, generator=g), torch.rand(rows.shape, generator=g)
    together = (
        geometry.distance(rows),
        geometry.dual(rows),
        geometry.steepest(rows),
        geometry.project(rows, epsilon),
        geometry.confine(rows, epsilon, low, high),
    )
    for i in range(len(rows)):
        one = slice(i, i + 1)
        alone = (
            geometry.distance(rows[one]),
            geometry.dual(rows[one]),
            geometry.steepest(rows[one]),
            geometry.project(rows[one], epsilon[one]),
            geometry.confine(rows[one], epsilon[one], low[one], high[one]),
        )
        for whole, part in zip(together, alone, strict=True):
            assert torch.allclose(whole[one], part, atol=1e-6)
    confined = together[-1]
    assert bool((confined >= low).all()) and bool((confined <= high).all())
    assert bool((geometry.distance(confined) <= epsilon * (1 + 1e-6)).all())


def test_the_dual_norm_under_l1_is_the_largest_entry() -> None:
    gradient = torch.randn(5, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    assert torch.equal(GEOMETRIES["l1"].dual(gradient), gradient.flatten(1).abs().amax(dim=1))


def test_a_sparse_step_moves_one_pixel_in_a_hundred_the_steepest_ones() -> None:
    gradient = torch.randn(3, 3, 10, 10, generator=torch.Generator().manual_seed(2))
    step = GEOMETRIES["l1"].steepest(gradient).flatten(1)
    for row, direction in zip(gradient.flatten(1), step, strict=True):
        moved = direction.nonzero()[:, 0]
        assert sorted(moved.tolist()) == sorted(row.abs().topk(3).indices.tolist())
        assert torch.allclose(direction[moved], row[moved].sign() / 3)
    few = GEOMETRIES["l1"].steepest(gradient[:, :, :3, :3])
    assert (few != 0).flatten(1).sum(dim=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_points_of_the_ball_are_uniform_in_volume(norm: Norm) -> None:
    """‖x‖ᵈ of a uniform point of the unit ball is uniform in [0, 1], signs are fair, and each key draws its own."""
    geometry = GEOMETRIES[norm]
    ids, like = torch.arange(4000), torch.zeros(4000, 1, 1, 3)
    points = geometry.sample(ids, 7, like=like)
    assert points.shape == like.shape and points.dtype == like.dtype
    volume = geometry.distance(points.double()).pow(3)
    assert float(volume.max()) <= 1 + 1e-6
    assert kstest(volume.numpy(), "uniform").pvalue > 1e-3
    assert abs(float((points > 0).float().mean()) - 0.5) < 0.02
    assert (points.abs().flatten(1).mean(dim=0) - points.abs().mean()).abs().max() < 0.02
    assert not torch.equal(points, geometry.sample(ids, 8, like=like))
    assert torch.equal(points[5:9], geometry.sample(ids[5:9], 7, like=like[5:9]))
    assert geometry.sample(ids[:1], 7, like=like[:1]).shape == (1, 1, 1, 3)


def test_rounding_may_push_a_point_out_by_no_more_than_the_slack() -> None:
    half = 2.0**-24
    assert GEOMETRIES["linf"].slack(100) == half
    assert GEOMETRIES["l2"].slack(100) == pytest.approx(10 * half)
    assert GEOMETRIES["l1"].slack(100) == pytest.approx(100 * half)


def test_the_ball_is_judged_row_by_row_and_holds_its_border() -> None:
    threat = Threat(norm="l1", epsilon=0.5)
    images = torch.full((3, 1, 2, 2), 0.5)
    moved = images.clone()
    moved[0, 0, 0] += 0.25  # two pixels: on the border
    moved[1, 0, 0] += 0.26
    moved[2, 0, 0, 0] = 1.5  # outside the bounds
    inside = threat.contains(moved, images, torch.tensor([0.5, 0.5, 5.0]))
    assert inside.tolist() == [True, False, False]
