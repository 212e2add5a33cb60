from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset, to_unit_range
from assay.diagnostics.attribution import (
    NOISY_COPIES,
    Pictured,
    attribute,
    choose_methods,
    grad_cam,
    gradient,
    integrate,
    integrated_gradients,
    noise_of,
    smoothgrad,
)
from assay.diagnostics.deletion import area, blur, fractions_of, measure_deletion, rank_regions, regions_of
from assay.diagnostics.layers import last_feature_map, layers_by_depth, recorded_calls
from assay.diagnostics.maps import METHODS, measure_saliency_maps
from assay.diagnostics.randomization import cascade, rank_correlations
from assay.errors import ModelError
from assay.models.calls import calling
from assay.runtime import generator


class Convolutions(nn.Module):
    """Two convolutions with in-place rectifiers, one of which is used twice, and a linear layer on the means."""

    def __init__(self, channels: int = 3, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.last = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        return self.last(self.relu(self.second(x)).mean(dim=(2, 3)))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def pictured(data: ImageDataset, n: int = 5) -> Pictured:
    return Pictured(to_unit_range(data.images[:n]), torch.arange(n) % 4, tuple(data.ids[:n].tolist()))


def test_the_gradient_of_a_linear_model_is_its_weights(images) -> None:
    model, chosen = linear(), pictured(images)
    with calling(model, chosen.images) as network:
        maps = attribute(gradient, network, chosen)
    weights = model[1].weight.detach()[chosen.targets].view(5, 3, 8, 8)
    torch.testing.assert_close(maps, weights.abs().sum(dim=1))


def test_integrated_gradients_of_a_linear_model_are_gradient_times_picture_and_complete(images) -> None:
    model, chosen = linear(), pictured(images)
    with calling(model, chosen.images) as network:
        values = integrate(network, chosen)
        maps = attribute(integrated_gradients, network, chosen)
        change = network(chosen.images) - network(torch.zeros_like(chosen.images))
    weights = model[1].weight.detach()[chosen.targets].view(5, 3, 8, 8)
    torch.testing.assert_close(values, weights * chosen.images)
    torch.testing.assert_close(maps, (weights * chosen.images).sum(dim=1))
    torch.testing.assert_close(values.flatten(1).sum(dim=1), change.gather(1, chosen.targets[:, None])[:, 0])


def test_integrated_gradients_of_a_smooth_network_are_complete(images) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(216, 8), nn.Tanh(), nn.Linear(8, 4))
    chosen = pictured(images)
    with calling(model, chosen.images) as network:
        total = integrate(network, chosen).flatten(1).sum(dim=1)
        change = network(chosen.images) - network(torch.zeros_like(chosen.images))
    torch.testing.assert_close(total, change.gather(1, chosen.targets[:, None])[:, 0].detach(), rtol=1e-4, atol=1e-4)


def test_smoothgrad_is_the_mean_gradient_over_noisy_copies(images) -> None:
    model, chosen = Convolutions().eval(), pictured(images, 3)
    with calling(model, chosen.images) as network:
        maps = attribute(smoothgrad, network, chosen)
    for i, identity in enumerate(chosen.ids):
        image = chosen.images[i : i + 1]
        torch.manual_seed(generator(identity).initial_seed())
        noise = torch.normal(0.0, torch.full((NOISY_COPIES, 3, 8, 8), noise_of(image)))
        copies = (image + noise).requires_grad_(True)
        (slope,) = torch.autograd.grad(model(copies)[:, int(chosen.targets[i])].sum(), copies)
        torch.testing.assert_close(maps[i], slope.mean(dim=0).abs().sum(dim=0), rtol=1e-4, atol=1e-6)


def test_grad_cam_weighs_the_channels_by_their_mean_slope(images) -> None:
    model, chosen = Convolutions().eval(), pictured(images)
    with calling(model, chosen.images) as network:
        methods, refused, layer = choose_methods(network, model, chosen.images[:1], wanted=METHODS)
        maps = attribute(methods["grad-cam"], network, chosen)
    assert (layer, refused) == ("relu", {})
    feature = model.relu(model.second(model.relu(model.norm(model.first(chosen.images))))).detach().requires_grad_(True)
    logit = model.last(feature.mean(dim=(2, 3))).gather(1, chosen.targets[:, None]).sum()
    (slope,) = torch.autograd.grad(logit, feature)
    coarse = (slope.mean(dim=(2, 3), keepdim=True) * feature.detach()).sum(dim=1, keepdim=True)
    expected = F.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


class Tokens(nn.Module):
    """Patches by a convolution, then layers on tokens, as a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.patches(x).flatten(2).transpose(1, 2)).mean(dim=1))


class Twice(nn.Module):
    """One convolution called twice, and nothing else that holds a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x).tanh()).tanh().flatten(1))


@pytest.mark.parametrize(
    ("model", "layer"),
    [(Convolutions(), "relu"), (Tokens(), None), (linear(), None), (Twice(), "conv")],
    ids=["convolutions", "tokens", "linear", "called twice"],
)
def test_the_last_convolutional_feature_map_is_found_or_there_is_none(images, model, layer) -> None:
    with torch.no_grad(), recorded_calls(model) as calls:
        model(to_unit_range(images.images[:2]))
    found = last_feature_map(calls)
    assert (None if found is None else found.name) == layer
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision:resnet18", "layer4"), ("torchvision:vgg11", "features.19"),
        ("torchvision:mobilenet_v3_small", "features"),
        ("torchvision:densenet121", "features"), ("torchvision:convnext_tiny", "features"),
        ("torchvision:vit_b_16", None), ("torchvision:swin_t", None),
    ],
)  # fmt: skip
def test_the_feature_map_of_networks_that_others_wrote(name, layer) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):  # shapes are enough
        model = models.get_model(name.removeprefix("torchvision:"), num_classes=3).eval()
        images = torch.empty(1, 3, 224, 224)
    with torch.no_grad(), recorded_calls(model) as calls:
        model(images)
    found = last_feature_map(calls)
    assert (None if found is None else found.name) == layer


def test_grad_cam_of_a_convolution_that_is_called_twice_is_of_its_last_call(images) -> None:
    model, chosen = Twice().eval(), pictured(images)
    with calling(model, chosen.images) as network:
        maps = attribute(grad_cam(model.conv), network, chosen)
    feature = model.conv(model.conv(chosen.images).tanh()).detach().requires_grad_(True)
    logit = model.head(feature.tanh().flatten(1)).gather(1, chosen.targets[:, None]).sum()
    (slope,) = torch.autograd.grad(logit, feature)
    expected = (slope.mean(dim=(2, 3), keepdim=True) * feature.detach()).sum(dim=1)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


def test_layers_stand_in_the_order_of_the_computation(images) -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.token = nn.Linear(192, 4), nn.Parameter(torch.zeros(1))
            self.body = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x + self.token).flatten(1))

    model = Backwards()
    with torch.no_grad(), recorded_calls(model) as calls:
        model(to_unit_range(images.images[:2]))
    assert [name for name, _ in layers_by_depth(model, calls)] == ["", "body", "head"]


def test_the_cascade_permutes_every_tensor_from_the_output_down() -> None:
    model = Convolutions()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = [(name, getattr(model, name)) for name in ("first", "norm", "second", "last")]
    reached = []
    for name, count in cascade(layers, depths=3, seed=0):
        reached.append((name, count))
        changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
        assert {key.split(".")[0] for key in changed} == {each for each, _ in layers[-count:]} - {"norm"}
    assert reached == [("last", 1), ("second", 2), ("first", 4)]
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.flatten().sort().values, before[name].flatten().sort().values)


def test_rank_correlations_are_spearmans_with_ties() -> None:
    draws = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 9, (4, 6, 5), generator=draws).float()
    others = torch.randint(0, 9, (4, 6, 5), generator=draws).float() + maps
    expected = [float(spearmanr(a.flatten(), b.flatten())[0]) for a, b in zip(maps, others, strict=True)]
    assert rank_correlations(maps, others) == pytest.approx(expected)
    assert rank_correlations(maps[:1], torch.zeros(1, 6, 5)) == [0.0]
    assert math.isnan(rank_correlations(maps[:1], torch.full((1, 6, 5), torch.inf))[0])


def test_regions_are_a_grid_and_are_ranked_by_their_mean() -> None:
    regions = regions_of((20, 3))
    assert regions.unique().tolist() == list(range(24))
    maps = torch.zeros(1, 32, 32)
    maps[0, 4:8, 8:12], maps[0, 28:, 28:] = 2.0, 1.0
    order = rank_regions(maps, ids=(3,), seed=0)
    assert order[0, :2].tolist() == [10, 63]
    assert sorted(order[0].tolist()) == list(range(64))
    assert order[0, 2:].tolist() != sorted(order[0, 2:].tolist())  # ties are not in reading order


def test_deletion_is_what_a_plain_loop_gives(images) -> None:
    model, chosen = Convolutions().eval(), pictured(images, 3)
    orders = rank_regions(torch.rand(3, 8, 8), ids=chosen.ids, seed=0)
    with calling(model, chosen.images) as network:
        curves = measure_deletion(network, chosen.images, chosen.targets, orders)
    blurred = blur(chosen.images)
    for i in range(3):
        image, expected = chosen.images[i].clone(), []
        for place in range(65):
            if place % 8 == 0:
                with torch.no_grad():
                    expected.append(float(model(image[None]).softmax(dim=1)[0, chosen.targets[i]]))
            if place < 64:
                row, column = divmod(int(orders[i, place]), 8)
                image[:, row, column] = blurred[i, :, row, column]
        assert curves[i].tolist() == pytest.approx(expected, abs=1e-6)
    assert fractions_of(64) == tuple(i / 8 for i in range(9))
    assert float(area(torch.ones(1, 9), fractions_of(64))) == 1.0


def half_marked() -> tuple[nn.Module, ImageDataset]:
    """Pictures with a bright square, and a network that answers by how bright that corner is."""

    class Corner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
            nn.init.constant_(self.conv.weight, 1 / 9)
            self.head = nn.Linear(1, 2)
            self.head.weight.data = torch.tensor([[20.0], [-20.0]])
            self.head.bias.data = torch.tensor([-12.0, 12.0])

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x)[:, :, :8, :8].mean(dim=(2, 3)))

    draws = generator(7)
    pixels = torch.randint(0, 60, (24, 1, 16, 16), generator=draws, dtype=torch.uint8)
    pixels[:, :, :8, :8] = torch.randint(180, 256, (24, 1, 8, 8), generator=draws, dtype=torch.uint8)
    return Corner(), ImageDataset(pixels, torch.zeros(24, dtype=torch.long), ("bright", "dark"))


def test_maps_that_mark_what_the_answer_rests_on_gain_over_random_orders() -> None:
    model, data = half_marked()
    record = measure_saliency_maps(model, data, n=24)
    assert [each.method for each in record.maps] == list(METHODS)
    assert record.layer == "conv"
    for each in record.maps[:3]:
        assert min(each.gains) > 0.1
        assert each.deleted[2] < 0.3 < 0.9 < record.random[2]
        assert len(each.gains) == 24 - each.blank == 24


def test_a_map_that_ignores_the_weights_is_the_same_with_random_ones(images) -> None:
    class Fixed(nn.Module):
        """A network whose slope is that of a fixed filter, whatever its own weights are."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([2.0, 1.0]))
            self.fixed = torch.rand(192, 4, generator=generator(1))

        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1) * 2) @ self.fixed * self.scale.mean()

    record = measure_saliency_maps(Fixed(), images, methods=("gradient", "smoothgrad"), n=12)
    for each in record.maps:
        assert each.randomized[-1].correlations == pytest.approx((1.0,) * 8)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 4))
    changed = measure_saliency_maps(network, images, methods=("gradient",), n=12).maps[0]
    assert max(map(abs, changed.randomized[-1].correlations)) < 0.5


def test_records_do_not_hang_on_the_other_images(images) -> None:
    few, many = (measure_saliency_maps(Convolutions(), images.run(0, n), n=n, depths=0) for n in (3, 6))
    for a, b in zip(few.maps, many.maps, strict=True):
        assert b.gains[:3] == pytest.approx(a.gains, abs=1e-5)


def test_leaves_the_model_as_found(images, untouched) -> None:
    model = Convolutions().train()
    model.first.bias.requires_grad_(False)
    with untouched(model):
        record = measure_saliency_maps(model, images, n=4, shown=2)
    assert len(record.maps) == 4
    assert [len(sample.maps) for sample in record.samples] == [4, 4]
    assert type(record).model_validate_json(record.model_dump_json()) == record


def test_without_captum_the_gradient_is_left_and_the_others_say_how_to_get_them(images, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "captum" else found(name))
    record = measure_saliency_maps(Convolutions(), images, n=4)
    assert [each.method for each in record.maps] == ["gradient"]
    assert len(record.unmade) == 3
    assert all("pip install 'assay[maps]'" in each.reason for each in record.unmade)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(images, kind) -> None:
    single = measure_saliency_maps(Convolutions(), images, n=8, depths=0)
    other = measure_saliency_maps(Convolutions().to(kind), images, n=8, depths=0)
    for a, b in zip(single.maps, other.maps, strict=True):
        assert sum(b.gains) / 8 == pytest.approx(sum(a.gains) / 8, abs=0.02)


def test_one_grey_picture_and_a_network_that_fails_on_one() -> None:
    class Squeezes(Convolutions):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out.squeeze(0) if len(out) > 1 else out[0]

    data = ImageDataset(torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8), torch.tensor([2]), tuple("abcd"))
    plain = measure_saliency_maps(Convolutions(1), data)
    squeezed = measure_saliency_maps(Squeezes(1), data)
    for a, b in zip(plain.maps, squeezed.maps, strict=True):
        assert (a.method, a.gains) == (b.method, pytest.approx(b.gains, abs=1e-5))
    assert [len(each.gains) + each.blank for each in plain.maps] == [1] * 4


def test_what_cannot_be_explained_is_refused(images) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4].detach()

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] * torch.nan

    with pytest.raises(ModelError, match="cut off from its input"):
        measure_saliency_maps(Cut(), images)
    with pytest.raises(ModelError, match="finite logits, got NaN"):
        measure_saliency_maps(Broken(), images)
    record = measure_saliency_maps(nn.Sequential(nn.Flatten(), nn.Linear(192, 4).requires_grad_(False)), images, n=2)
    assert record.unrandomized is None
    bare = measure_saliency_maps(nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(4)), images, n=2)
    assert bare.unrandomized == "no layer with weights"
