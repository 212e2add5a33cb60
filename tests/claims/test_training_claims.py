"""Claims about training: the arms differ in what they should, and in nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from assay.claims import Settings
from assay.claims.augment_helps import _alone
from assay.claims.bottleneck import BASIC, SAME_CHANNELS, SAME_FLOPS, choose_networks
from assay.claims.decay_bias import _recipes as decay_recipes
from assay.claims.networks import mean_curve, paired, train_one, train_side_by_side
from assay.claims.residual_depth import growth
from assay.data.dataset import ImageDataset
from assay.models.anatomy import measure_anatomy
from assay.models.architectures import build
from assay.records.claims import ClaimResult
from assay.records.gradients import GradientFlow, LayerGradient
from assay.training.recipes import Recipe
from assay.training.sections import SGDOptions

OURS = (
    "residual-depth",
    "norm-order",
    "bottleneck",
    "decay-bias",
    "augment-helps",
    "rnn-norm",
    "rnn-bounded",
    "rnn-clip",
    "rnn-decay",
    "lstm-forget",
    "attention-path",
)
Examined = Callable[[str], ClaimResult]
RECIPE = Recipe(
    name="test",
    model="mlp",
    model_options={"width": 8},
    epochs=0.2,
    batch_size=64,
    optimizer=SGDOptions(lr=0.05),
)


@pytest.fixture(scope="module")
def digits(tiny: Settings) -> ImageDataset:
    return tiny.train(side=8)


@pytest.mark.parametrize("name", OURS)
def test_a_result_says_what_was_found_in_which_units(examined: Examined, name: str) -> None:
    result = examined(name)
    assert ClaimResult.model_validate_json(result.model_dump_json()) == result
    assert result.evidence.charts
    assert result.evidence.tables
    for chart in result.evidence.charts:
        assert any(character.isdigit() for character in chart.finding)
        assert chart.x.title
        assert chart.y.title
        assert len({point.series for point in chart.points}) <= 6
        assert chart.points
    assert result.would_change
    assert all(re.search(r"\b(19|20)\d\d\b", reference) for reference in result.references)
    assert any(effect.decides for effect in result.effects) or any(fact.decides for fact in result.evidence.facts)


def test_equal_recipes_give_equal_outcomes_and_seeds_differ(digits: ImageDataset) -> None:
    found = train_side_by_side({"a": RECIPE, "b": RECIPE}, digits, digits, seeds=(0, 1))
    assert paired(found["a"], found["b"], "accuracy") == (0.0, 0.0)
    assert paired(found["a"], found["b"], "training_loss") == (0.0, 0.0)
    assert found["a"][0].training_loss != found["a"][1].training_loss
    curve = mean_curve(found["a"], lambda step: step.loss, series="a", most=3)
    assert [point.x for point in curve] == [1, 3, 4]
    assert curve[0].y == pytest.approx(sum(one.steps[0].loss for one in found["a"]) / 2)


def test_a_run_that_diverges_is_an_outcome(digits: ImageDataset) -> None:
    wild = RECIPE.model_copy(update={"optimizer": SGDOptions(lr=1e6)})
    one = train_one(wild, digits, digits, seed=0)
    assert one.diverged
    assert 0 < len(one.steps) < 4
    assert 0 <= one.accuracy <= 100
    assert not one.model.training


def test_the_change_before_training_is_made(digits: ImageDataset) -> None:
    def silence(model: torch.nn.Module) -> None:
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)

    one = train_one(RECIPE, digits, digits, seed=0, prepare=silence)
    assert one.steps[0].loss == pytest.approx(torch.tensor(10.0).log().item())


def test_decay_has_every_subset_of_the_groups_a_network_has(tiny: Settings, digits: ImageDataset) -> None:
    arms = decay_recipes(tiny, "resnet8", digits)
    assert len(arms) == 8
    assert {roles: frozenset(recipe.optimizer.decay_roles) for roles, recipe in arms.items()} == {r: r for r in arms}
    assert set(decay_recipes(tiny, "mlp", digits)) == {
        frozenset(roles) for roles in ((), ("bias",), ("weight",), ("bias", "weight"))
    }


def test_bottlenecks_are_matched_by_channels_and_by_flops(digits: ImageDataset) -> None:
    networks = {
        name: measure_anatomy(
            build("resnet20", classes=10, image_shape=digits.shape, options=options), image_shape=digits.shape
        )
        for name, options in choose_networks(digits).items()
    }
    assert len({anatomy.depth for anatomy in networks.values()}) == 1
    assert networks[SAME_FLOPS].flops == pytest.approx(networks[BASIC].flops, rel=0.1)
    widths = {
        name: [layer.output_shape[0] for layer in anatomy.layers if layer.name == "layer3.1"]
        or [layer.output_shape[0] for layer in anatomy.layers if layer.name.startswith("layer3.1.conv")][-1:]
        for name, anatomy in networks.items()
    }
    assert widths[SAME_CHANNELS] == widths[BASIC] == [64]
    assert {block.shape for block in networks[SAME_CHANNELS].blocks} == {"bottleneck"}
    assert {block.shape for block in networks[BASIC].blocks} == {"basic"}


def test_growth_is_of_convolutions_from_the_last_to_the_first() -> None:
    def layer(kind: str, depth: int, gradient: float) -> LayerGradient:
        zero = {"weight_norm": 1, "weight_gradient": 0, "relative_gradient": 0, "activation": 1}
        return LayerGradient(
            name=str(depth), type=kind, depth=depth, parameters=1, activation_gradient=0, gradient_per_sample=gradient,
            **zero,
        )  # fmt: skip

    layers = (layer("Conv2d", 0, 6), layer("BatchNorm2d", 1, 50), layer("Conv2d", 2, 2), layer("Linear", 3, 9))
    assert growth(GradientFlow(layers=layers, n=1, loss=1, decay_per_layer=None)) == 3


def test_an_operation_alone_is_done_to_half_of_the_images(digits: ImageDataset) -> None:
    assert _alone("Rotate", digits) == "rotate(-15, 15, p=0.5)"
    assert _alone("Equalize", digits) == "equalize(p=0.5)"
    assert _alone("TranslateX", digits) == "translatex(-1, 1, p=0.5)"
