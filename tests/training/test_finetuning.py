"""Fine-tuning: the head, the rates of the layers, the frozen start; against timm's groups and steps written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from timm.optim import param_groups_layer_decay
from torch import nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import InterruptedRunError, ModelError, OptionError
from assay.models.heads import head_parameters, replace_head
from assay.training.finetuning import layer_depths
from assay.training.loop import fit
from assay.training.optimizers import build_optimizers
from assay.training.param_groups import audit_optimizer
from assay.training.recipes import Recipe
from assay.training.sections import AdamWOptions, MuonOptions, SGDOptions


def small_vit() -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 4}
    return timm.models.vision_transformer.VisionTransformer(**sizes)


class Averaged(nn.Module):
    """Two last layers whose logits are averaged and scaled, as a distilled transformer has them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.norm = nn.LayerNorm(5)
        self.one, self.two = nn.Linear(5, 4), nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.body(images))
        return self.scale * (self.one(x) + self.two(x)) / 2


class Convolutional(nn.Sequential):
    def __init__(self) -> None:
        pooled = (nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), *pooled)


@pytest.mark.parametrize(
    ("make", "size", "head"),
    [
        (small_vit, 16, {"head.weight", "head.bias"}),
        (
            lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
            32,
            {"classifier.3.weight", "classifier.3.bias"},
        ),
        (lambda: torchvision.models.squeezenet1_1(num_classes=4), 32, {"classifier.1.weight", "classifier.1.bias"}),
        (
            Averaged,
            8,
            {f"one.{each}" for each in ("weight", "bias")}
            | {"two.bias", "scale"}
            | {f"two.parametrizations.weight.original{each}" for each in (0, 1)},
        ),
        (Convolutional, 8, {"2.weight", "2.bias"}),
    ],
    ids=["vit", "mobilenet", "squeezenet", "two heads", "convolution"],
)
def test_the_head_is_what_reaches_the_logits_without_another_layer(
    make: Callable[[], nn.Module], size: int, head: set[str]
) -> None:
    model = make()
    model.requires_grad_(False)
    assert set(head_parameters(model, torch.rand(2, 3, size, size))) == head
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_new_head_has_the_new_classes_and_leaves_the_rest() -> None:
    for model, path in ((small_vit(), "head"), (Convolutional(), "2")):
        before = copy.deepcopy(model.state_dict())
        names = replace_head(model, torch.rand(2, 3, 16, 16), classes=7)
        assert set(names) == {f"{path}.weight", f"{path}.bias"}
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 7)
        after = model.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith(path))


def test_a_model_without_a_last_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="a last layer with parameters"):
        head_parameters(nn.Flatten(), torch.rand(2, 1, 2, 2))


def timm_scales(model: nn.Module, decay: float) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=decay)
    return {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", ["vit", "resnet10t"])
def test_rates_are_those_of_timms_groups(name: str) -> None:
    model = small_vit() if name == "vit" else timm.create_model(name, num_classes=4)
    depths = layer_depths(model, head=head_parameters(model, torch.rand(2, 3, 16, 16)))
    expected = timm_scales(model, 0.5)
    last = max(depths.values())
    assert {each: 0.5 ** (last - depth) for each, depth in depths.items()} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "stages"),
    [
        (lambda: torchvision.models.swin_t(num_classes=4), 8),  # stem, stages, and the merging between them
        (lambda: torchvision.models.vit_b_16(num_classes=4, image_size=32), 12),
        (lambda: torchvision.models.densenet121(num_classes=4), 7),
    ],
    ids=["swin", "vit", "densenet"],
)
def test_depths_never_fall_from_the_input_to_the_logits(make: Callable[[], nn.Module], stages: int) -> None:
    with torch.device("meta"):
        model = make()
    head = [name for name, _ in model.named_parameters()][-2:]
    depths = list(layer_depths(model, head=head).values())
    assert depths == sorted(depths)
    assert depths[-1] == max(depths) == stages + 1


@pytest.mark.parametrize(
    "options",
    [SGDOptions(), AdamWOptions(decay_roles=("weight", "norm"), norm_lr_factor=2.0), MuonOptions()],
    ids=["sgd", "adamw", "muon"],
)
def test_every_parameter_is_in_one_group_at_its_own_rate(options: SGDOptions | AdamWOptions | MuonOptions) -> None:
    model = small_vit()
    rates = {name: 0.5 ** (4 - depth) for name, depth in layer_depths(model, head=["head.weight"]).items()}
    plain, tuned = build_optimizers(model, options), build_optimizers(model, options, rates=rates)
    assert not audit_optimizer(model, list(tuned)).missing
    assert not audit_optimizer(model, list(tuned)).repeated

    def per_parameter(optimizers: tuple[torch.optim.Optimizer, ...], key: str) -> dict[int, float]:
        groups = [group for each in optimizers for group in each.param_groups]
        return {id(parameter): group[key] for group in groups for parameter in group["params"]}

    for name, parameter in model.named_parameters():
        key = id(parameter)
        for rate in ("lr", "peak_lr"):
            assert per_parameter(tuned, rate)[key] == pytest.approx(per_parameter(plain, rate)[key] * rates[name])
        decays = [per_parameter(each, "weight_decay")[key] for each in (tuned, plain)]
        assert decays[0] == decays[1]


@pytest.fixture
def tuning(recipe: Recipe) -> Recipe:
    finetune = {"layer_decay": 0.5, "frozen_epochs": 1}
    return Recipe.parse({**recipe.model_dump(), "augment": {"name": "none"}, "finetune": finetune})


def test_a_step_is_the_plain_one_with_a_rate_for_each_layer(
    blobs: ImageDataset, smallnet: Callable[[], nn.Module], recipe: Recipe
) -> None:
    """The naive twin: one step of SGD without momentum, written out."""
    values = {**recipe.model_dump(), "epochs": 1 / 6, "augment": {"name": "none"}, "batch_size": 20}
    values["optimizer"] = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    values["schedule"] = {"name": "constant"}
    plain = Recipe.parse(values)
    tuned = Recipe.parse({**values, "finetune": {"layer_decay": 0.5}})
    start, one, other = smallnet(), smallnet(), smallnet()
    fit(one, blobs, recipe=plain)
    fit(other, blobs, recipe=tuned)
    for place, rate in (("0", 0.0625), ("1", 0.125), ("3", 0.25), ("7", 1.0)):  # the head is above the last block
        before, after = start.get_submodule(place).weight, one.get_submodule(place).weight
        expected = before + rate * (after - before)
        torch.testing.assert_close(other.get_submodule(place).weight, expected)


def test_while_it_is_frozen_the_backbone_keeps_every_bit(
    blobs: ImageDataset, smallnet: Callable[[], nn.Module], tuning: Recipe
) -> None:
    start, model = smallnet().state_dict(), smallnet()
    changed: list[set[str]] = []

    def compare(metrics: object) -> None:
        changed.append({name for name, value in model.state_dict().items() if not torch.equal(value, start[name])})

    fit(model, blobs, recipe=tuning, on_step=compare)
    assert changed[:6] == [{"7.weight", "7.bias"}] * 6
    assert {"0.weight", "1.weight", "1.running_mean", "3.weight", "7.weight"} <= changed[6]
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ModelError):  # whatever ends the run

        def stop(*_: object) -> object:
            raise ModelError("loss", expected="an end", got="one")

        fit(model, blobs, recipe=tuning, loss=stop)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_last_epoch_is_never_frozen(blobs: ImageDataset, smallnet: Callable[[], nn.Module], tuning: Recipe) -> None:
    start, model = smallnet(), smallnet()
    fit(model, blobs, recipe=tuning.model_copy(update={"epochs": 1}))
    assert not torch.equal(model[0].weight, start[0].weight)


def test_a_run_killed_in_its_frozen_start_resumes_to_the_same_weights(
    blobs: ImageDataset, smallnet: Callable[[], nn.Module], tuning: Recipe, tmp_path: Path
) -> None:
    import signal

    complete = smallnet()
    fit(complete, blobs, recipe=tuning, seed=3)
    for stop in (2, 8):  # in the frozen epoch, and after it
        folder = tmp_path / str(stop)

        def interrupt(metrics: object, stop: int = stop) -> None:
            if metrics.step == stop:  # type: ignore[attr-defined]
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(InterruptedRunError):
            fit(smallnet(), blobs, recipe=tuning, seed=3, out=folder, on_step=interrupt)
        resumed = smallnet()
        fit(resumed, blobs, recipe=tuning, seed=3, out=folder, resume=True)
        for name, value in complete.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_model_of_one_layer_and_a_sequence_have_nothing_to_tune(blobs: ImageDataset, tuning: Recipe) -> None:
    single = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(ModelError, match="trainable layers before the last one"):
        fit(single, blobs, recipe=tuning)
    with pytest.raises(OptionError, match="finetune"):
        Recipe.parse({"name": "s", "data": "adding", "finetune": {"layer_decay": 0.5}})
    assert to_unit_range(blobs.images[:1]).max() <= 1
