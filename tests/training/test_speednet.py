"""The quick network: its whitening, its initialisation, what it takes, and what averages its views."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset
from assay.errors import ModelError, OptionError
from assay.models.architectures import build
from assay.models.speednet import SpeedNet
from assay.models.wrappers import AveragedViews
from assay.training.classifier import build_for, measure_normalization
from assay.training.recipes import Recipe


def correlated_images(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.avg_pool2d(torch.rand(n, 3, 18, 18, generator=generator), 3, stride=1)


def test_whitened_patches_have_unit_variance_and_no_correlation() -> None:
    images = correlated_images(200)
    model = build("speednet", classes=4, image_shape=(3, 16, 16), normalization="none")
    assert isinstance(model, SpeedNet)
    model.initialize_from(images)
    outputs = model.whitening(images)[:, :12].transpose(0, 1).flatten(1).double()
    covariance = torch.cov(outputs)
    assert (covariance - covariance.diagonal().diag()).abs().max() < 1e-3
    values = torch.linalg.eigvalsh(torch.cov(F.unfold(images, 2).transpose(0, 1).flatten(1).double()))
    expected = (values / (values + 5e-4)).flip(0)
    torch.testing.assert_close(covariance.diagonal(), expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(model.whitening.weight[12:], -model.whitening.weight[:12])


def test_a_large_epsilon_bounds_the_gain_of_the_first_layer() -> None:
    gains = []
    for epsilon in (5e-4, 0.1):
        options = {"whitening_epsilon": epsilon}
        model = build("speednet", classes=2, image_shape=(3, 16, 16), normalization="none", options=options)
        assert isinstance(model, SpeedNet)
        model.initialize_from(correlated_images(50))
        gains.append(float(torch.linalg.matrix_norm(model.whitening.weight[:12].flatten(1), 2)))
    assert gains[0] > 15
    assert gains[1] == pytest.approx(0.1**-0.5, rel=0.01)


def test_the_whitening_is_frozen_and_needs_no_gradient_for_what_lies_before_the_first_block() -> None:
    model = build("speednet", classes=4, image_shape=(1, 16, 16))
    assert isinstance(model, SpeedNet)
    assert not any(parameter.requires_grad for parameter in model.whitening.parameters())
    seen = []
    model.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    model(torch.rand(2, 1, 16, 16)).sum().backward()
    assert seen == [False]
    trained = build("speednet", classes=4, image_shape=(1, 16, 16), options={"train_whitening_bias": True})
    assert [name for name, p in trained.named_parameters() if "whitening" in name and p.requires_grad] == [
        "whitening.bias"
    ]


def test_first_channels_of_a_block_pass_through_at_the_start() -> None:
    model = build("speednet", classes=4, image_shape=(3, 16, 16), options={"widths": [24, 32, 40]})
    assert isinstance(model, SpeedNet)
    conv = model.blocks[1].conv1  # 24 -> 32
    images = torch.rand(2, 24, 6, 6)
    torch.testing.assert_close(conv(images)[:, :24], images)
    assert conv(images)[:, 24:].std() > 0


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_a_block_of_three_convolutions_bridges_the_last_two(pooling: str) -> None:
    options = {"widths": [24, 32, 40], "depth": 3, "pooling": pooling}
    model = build("speednet", classes=4, image_shape=(3, 16, 16), options=options).eval()
    assert isinstance(model, SpeedNet)
    block, x = model.blocks[0], torch.randn(2, 24, 8, 8)
    pooled = {"max": F.max_pool2d, "average": F.avg_pool2d}[pooling](block.conv1(x), 2)
    entered = F.gelu(block.norm1(pooled))
    deeper = block.norm3(block.conv3(F.gelu(block.norm2(block.conv2(entered)))))
    torch.testing.assert_close(block(x), F.gelu(deeper + entered))
    assert [conv.weight.shape[1] for conv in (block.conv1, block.conv2, block.conv3)] == [24, 24, 24]
    torch.testing.assert_close(block.conv3.weight[:, :, 1, 1].diagonal(), torch.ones(24))


def test_a_mirrored_network_answers_alike_for_an_image_and_its_mirror_image_once_trained() -> None:
    plain, mirrored = (
        build("speednet", classes=4, image_shape=(3, 16, 16), options={"widths": [8, 8, 8], "mirrored": chosen}, seed=3)
        for chosen in (False, True)
    )
    images = torch.rand(5, 3, 16, 16)
    for model in (plain.eval(), mirrored.eval()):
        model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(mirrored(images), AveragedViews(plain, views=2)(images))
    torch.testing.assert_close(mirrored(images), mirrored(images.flip(3)))
    assert not torch.allclose(plain(images), plain(images.flip(3)))
    torch.testing.assert_close(mirrored.train()(images), plain.train()(images))  # trained on one view


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 32, 32), (3, 33, 47), (4, 64, 64)])
def test_it_takes_images_of_any_size_from_nine_pixels(shape: tuple[int, int, int]) -> None:
    model = build("speednet", classes=7, image_shape=shape, options={"widths": [8, 8, 8]}).eval()
    assert model(torch.rand(2, *shape)).shape == (2, 7)


def test_smaller_images_and_wrong_options_are_refused() -> None:
    with pytest.raises(ModelError, match="speednet: image size: expected at least 9×9 pixels, got 8×32"):
        build("speednet", classes=2, image_shape=(1, 8, 32))
    with pytest.raises(OptionError, match=r"speednet: widths"):
        build("speednet", classes=2, image_shape=(1, 16, 16), options={"widths": [1, 2]})


def test_the_recipe_network_is_normalised_by_its_data_and_follows_the_seed() -> None:
    images = torch.randint(0, 200, (60, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 77
    data = ImageDataset(images, torch.arange(60) % 2, ("a", "b"))
    mean, std = measure_normalization(data)
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert std[:2] == pytest.approx(pixels.std(dim=(0, 2, 3), unbiased=False).tolist()[:2])
    assert std[2] == 1.0  # a channel that never varies
    recipe = Recipe(name="x", model="speednet", model_options={"widths": [8, 8, 8]})
    first, second, other = (build_for(recipe, data, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    torch.testing.assert_close(
        first.normalize.mean.double(), torch.tensor(mean, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_views_are_averaged_as_written_out() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 25, 4))
    images = torch.rand(3, 3, 5, 5)

    def mirrored(x: Tensor) -> Tensor:
        return (model(x) + model(x.flip(3))) / 2

    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    expected = mirrored(images) / 2 + mirrored(padded[:, :, :5, :5]) / 4 + mirrored(padded[:, :, 2:, 2:]) / 4
    torch.testing.assert_close(AveragedViews(model)(images), expected)
    torch.testing.assert_close(AveragedViews(model, views=2)(images), mirrored(images))
    with pytest.raises(ValueError, match="views: expected 2 or 6, got 3"):
        AveragedViews(model, views=3)
