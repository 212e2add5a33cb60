from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import OptionError
from assay.models.architectures import build
from assay.models.resnet import BasicBlock, PadShortcut, ResNet, ResNetOptions


def make(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, **options: object) -> nn.Module:
    return build(name, classes=classes, image_shape=shape, options=options)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def cifar_count(n: int, *, projection: bool, classes: int = 10) -> int:
    """Closed form: stem, 2n convolutions a stage each with its norm, the first of a stage widening, and the head."""
    total = 3 * 16 * 9 + 32 + 64 * classes + classes
    for before, width in ((16, 16), (16, 32), (32, 64)):
        total += before * width * 9 + (2 * n - 1) * width * width * 9 + 2 * n * 2 * width
        if projection and before != width:
            total += before * width + 2 * width
    return total


@pytest.mark.parametrize(("depth", "published"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_parameters_match_closed_form_and_paper(depth: int, published: float) -> None:
    found = count(make(f"resnet{depth}"))
    assert found == cifar_count((depth - 2) // 6, projection=False)
    assert round(found / 1e6, 2 if depth < 100 else 1) == published  # He et al. 2015, table 6


def test_resnet20_has_exactly_the_parameters_known_of_it() -> None:
    assert count(make("resnet20")) == 269_722
    assert count(make("resnet20", shortcut="B")) == 272_474 == cifar_count(3, projection=True)


@pytest.mark.parametrize(("name", "expected"), [("resnet18", 11_173_962), ("resnet34", 21_282_122)])
def test_cifar_stem_parameters(name: str, expected: int) -> None:
    assert count(make(name)) == expected


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_imagenet_networks_equal_torchvisions(name: str) -> None:
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = models.get_model(name, weights=None).eval()
        for module in theirs.modules():  # norms as they come would hide a misplaced one
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = build(name, classes=1000, image_shape=(3, 224, 224), normalization="none").eval()
    assert count(ours) == count(theirs)
    renamed = {
        re.sub(r"^fc\.", "linear.", key).replace("downsample", "shortcut"): value
        for key, value in theirs.state_dict().items()
    }
    missing, unexpected = ours.load_state_dict(renamed, strict=False)
    assert (sorted(missing), unexpected) == (["normalize.mean", "normalize.std"], [])
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_pad_shortcut_is_subsampling_between_zeros() -> None:
    x = torch.rand(2, 4, 6, 6)
    out = PadShortcut(4, 9, stride=2)(x)
    assert out.shape == (2, 9, 3, 3)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


def trained_norms(model: nn.Module) -> nn.Module:
    """Give every norm numbers of its own, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                tensor.data.uniform_(low, low + 1, generator=generator)
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def by_hand(block: BasicBlock, x: Tensor, options: ResNetOptions, *, shared: bool) -> Tensor:
    """One basic block as the papers draw it."""
    conv1, conv2, bn1, bn2 = block.conv1, block.conv2, block.bn1, block.bn2

    def skip(source: Tensor) -> Tensor:
        if not options.skips:
            return torch.zeros(())
        return source if block.shortcut is None else block.shortcut(source)

    if options.activation == "pre" and options.norm_order == "bn-relu":
        first = F.relu(bn1(x))
        return conv2(F.relu(bn2(conv1(first)))) + skip(first if shared else x)
    if options.activation == "pre":
        first = bn1(F.relu(x))
        return conv2(bn2(F.relu(conv1(first)))) + skip(first if shared else x)
    if options.norm_order == "bn-relu":
        return F.relu(bn2(conv2(F.relu(bn1(conv1(x))))) + skip(x))
    return bn2(F.relu(conv2(bn1(F.relu(conv1(x)))))) + skip(x)


@pytest.mark.parametrize("activation", ["post", "pre"])
@pytest.mark.parametrize("norm_order", ["bn-relu", "relu-bn"])
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize(("in_channels", "stride", "shared"), [(8, 1, False), (8, 1, True), (4, 2, True)])
def test_block_computes_what_the_papers_draw(
    activation: str, norm_order: str, skips: bool, in_channels: int, stride: int, shared: bool
) -> None:
    options = ResNetOptions(activation=activation, norm_order=norm_order, skips=skips)  # type: ignore[arg-type]
    block = trained_norms(BasicBlock(in_channels, 8, stride=stride, options=options, shared=shared))
    x = torch.randn(2, in_channels, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(block(x), by_hand(block, x, options, shared=shared))  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["bn-relu", "relu-bn"])
def test_pre_activation_shares_the_first_activation_and_ends_with_one(order: str) -> None:
    options = ResNetOptions(activation="pre", norm_order=order, shortcut="A", stem="cifar")  # type: ignore[arg-type]
    model = trained_norms(build("resnet20", classes=4, image_shape=(3, 8, 8), options=options.model_dump()))
    assert isinstance(model, ResNet)
    images = torch.rand(2, 3, 8, 8)
    x = model.conv1(model.normalize(images))
    for stage in (1, 2, 3):
        for i, block in enumerate(model.get_submodule(f"layer{stage}").children()):
            x = by_hand(block, x, options, shared=i == 0)  # type: ignore[arg-type]
    x = model.bn_last(F.relu(x)) if order == "relu-bn" else F.relu(model.bn_last(x))
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.linear(x.mean(dim=(2, 3))))


@settings(max_examples=25)
@given(
    st.sampled_from(["resnet20", "resnet18", "resnet50"]),
    st.sampled_from(["A", "B"]),
    st.sampled_from(["post", "pre"]),
    st.sampled_from(["bn-relu", "relu-bn"]),
    st.booleans(),
    st.sampled_from(["auto", "cifar", "imagenet"]),
    st.sampled_from([1, 3]),
    st.integers(8, 40),
    st.integers(8, 40),
)
def test_every_variant_takes_every_size_and_reaches_every_parameter(
    name: str, shortcut: str, activation: str, order: str, skips: bool, stem: str, channels: int, h: int, w: int
) -> None:
    options = {"shortcut": shortcut, "activation": activation, "norm_order": order, "skips": skips, "stem": stem}
    model = build(
        name, classes=7, image_shape=(channels, h, w), options={**options, "width": 0.125}, normalization="none"
    )
    logits = model(torch.rand(3, channels, h, w))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


def test_option_a_adds_no_parameters_and_plain_nets_have_no_shortcuts() -> None:
    a, b, plain = make("resnet20"), make("resnet20", shortcut="B"), make("resnet20", skips=False)
    assert count(a) == count(plain)
    assert [key for key in b.state_dict() if "shortcut" in key and key.endswith("weight")] == [
        "layer2.0.shortcut.0.weight",
        "layer2.0.shortcut.1.weight",
        "layer3.0.shortcut.0.weight",
        "layer3.0.shortcut.1.weight",
    ]
    assert not any("shortcut" in key for key, _ in plain.named_modules())


def test_a_plain_net_is_the_net_without_its_skips() -> None:
    plain, residual = make("resnet20", skips=False), make("resnet20")
    plain.load_state_dict(residual.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(plain.eval()(images), residual.eval()(images))


@pytest.mark.parametrize(("size", "stem"), [(32, 3), (64, 3), (65, 7), (224, 7)])
def test_stem_follows_the_image_size(size: int, stem: int) -> None:
    model = make("resnet18", (3, size, size))
    assert isinstance(model, ResNet)
    assert model.conv1.kernel_size == (stem, stem)
    assert (model.maxpool is None) == (stem == 3)


def test_stem_can_be_chosen() -> None:
    assert make("resnet18", stem="imagenet").conv1.stride == (2, 2)  # type: ignore[union-attr]
    assert make("resnet20", (3, 224, 224)).conv1.stride == (1, 1)  # type: ignore[union-attr]


def test_width_multiplies_channels() -> None:
    assert make("resnet20", width=2).linear.in_features == 128  # type: ignore[union-attr]
    assert make("resnet20", width=0.5).conv1.out_channels == 8  # type: ignore[union-attr]


def test_weights_are_drawn_as_he_says() -> None:
    weight = make("resnet18").layer3[0].conv1.weight  # type: ignore[index, union-attr]
    assert weight.shape == (256, 128, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortcut": "C"}, "resnet20: shortcut: expected 'A' or 'B', got 'C'"),
        ({"depth": 3}, "resnet20: depth: expected no option of this name, got 3"),
        ({"width": 0}, "resnet20: width: expected greater than 0, got 0"),
    ],
)
def test_wrong_options_name_themselves(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make("resnet20", **options)
    assert str(caught.value) == message


def test_bottlenecks_of_a_small_resnet_have_the_parameters_of_the_closed_form() -> None:
    total, before = 1 * 16 * 9 + 32 + 256 * 10 + 10, 16
    for width in (16, 32, 64):
        for _ in range(2):
            total += before * width + 9 * width * width + width * 4 * width + 2 * (width + width + 4 * width)
            total += before * 4 * width + 8 * width if before != 4 * width else 0
            before = 4 * width
    model = make("resnet20", (1, 8, 8), block="bottleneck", shortcut="B")
    assert count(model) == total
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_depth_that_bottlenecks_do_not_add_up_to_is_refused() -> None:
    with pytest.raises(OptionError, match="resnet32: block: expected a depth of 9n \\+ 2 for bottleneck, got 32"):
        make("resnet32", block="bottleneck")
    with pytest.raises(OptionError, match="resnet18: block: expected no option of this name"):
        make("resnet18", block="bottleneck")
