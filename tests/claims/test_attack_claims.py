"""Claims about attacks, on the digits network at the smallest budget."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from assay.claims import Settings, find_claims
from assay.claims.networks import trained_network
from assay.claims.run import examine
from assay.errors import ModelError
from assay.records.claims import ClaimResult

Examined = Callable[[str], ClaimResult]


def test_the_loss_climbs_and_the_samples_are_its_steps(examined: Examined) -> None:
    result = examined("attack-steps")
    curve, shares = result.evidence.charts
    climbs = [effect.mean for effect in result.effects]
    assert len(climbs) == 5
    assert curve.points[-1].y - curve.points[0].y == pytest.approx(sum(climbs))
    assert all(0 <= point.y <= 100 for point in shares.points)
    assert result.verdict == "supported"


def test_the_collapse_is_measured_on_the_same_images(examined: Examined) -> None:
    result = examined("attack-collapse")
    steps, curve = result.evidence.charts
    quarter, lower = result.effects
    assert quarter.mean == pytest.approx(steps.points[1].y - 25)
    assert lower.mean == pytest.approx(steps.points[5].y - steps.points[1].y)
    assert [point.y for point in curve.points] == sorted((point.y for point in curve.points), reverse=True)


def test_noise_is_held_against_the_gradient_image_by_image(examined: Examined) -> None:
    result = examined("attack-random")
    broken, rise = result.effects
    assert broken.n == rise.n == 40
    assert rise.mean > 0
    (chart,) = result.evidence.charts
    at_eight = {point.series: point.y for point in chart.points if point.x == 8}
    gradient, noise = at_eight.values()
    assert broken.mean == pytest.approx(gradient - noise)


def test_the_network_is_trained_once_a_folder(tiny: Settings) -> None:
    first = trained_network(tiny)
    before = {path: path.stat().st_mtime_ns for path in tiny.folder.rglob("state.pt")}
    state = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    second = trained_network(tiny).model.state_dict()
    assert before
    assert all(torch.equal(tensor, second[name]) for name, tensor in state.items())


def test_a_network_left_by_another_version_is_trained_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.claims.networks.load_recipe", short_recipe)
    settings = Settings(budget="tiny", folder=tmp_path)
    trained_network(settings)
    (state,) = tmp_path.rglob("state.pt")
    state.write_bytes(b"not a checkpoint")
    assert trained_network(settings).model.training is False


def short_recipe(name: str):
    from assay.training.recipes import load_recipe

    return load_recipe(name, overrides=["epochs=0.1"])


def test_a_model_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^model: expected a run folder, one of resnet8, .*got 'no-such-network'$"):
        trained_network(Settings(model="no-such-network"))


def test_the_public_network_collapses(shared) -> None:
    settings = Settings(
        budget="tiny",
        data="cifar10",
        data_dir=shared / "data",
        model="resnet20",
        weights=shared / "models" / "resnet20-12fca82f.th",
    )
    (claim,) = find_claims(["attack-collapse"])
    result = examine(claim, settings)
    clean, one, *_, five = (point.y for point in result.evidence.charts[0].points)
    assert clean > 80
    assert five <= one < 50
