from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.models.anatomy import measure_anatomy
from assay.models.architectures import build
from assay.models.sources import load_model
from assay.records.anatomy import BlockAnatomy


def blocks(model: nn.Module, shape: tuple[int, int, int] = (3, 32, 32)) -> list[tuple[object, ...]]:
    return [
        (block.name, block.shape, block.skip, block.downsamples, block.norm_placement)
        for block in measure_anatomy(model, image_shape=shape).blocks
    ]


def cifar(skip: str, placement: str) -> list[tuple[object, ...]]:
    """What nine blocks of resnet20 must be found to be."""
    return [
        (f"layer{stage}.{i}", "basic", skip if stage > 1 and i == 0 else "identity", stage > 1 and i == 0, placement)
        for stage in (1, 2, 3)
        for i in range(3)
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, cifar("pad", "post-activation")),
        ({"shortcut": "B"}, cifar("projection", "post-activation")),
        ({"activation": "pre"}, cifar("pad", "pre-activation")),
        ({"activation": "pre", "shortcut": "B"}, cifar("projection", "pre-activation")),
        ({"activation": "pre", "norm_order": "relu-bn"}, cifar("pad", "pre-activation")),
        ({"norm_order": "relu-bn"}, cifar("pad", "unknown")),
    ],
    ids=str,
)
def test_our_blocks(options: dict[str, object], expected: list[tuple[object, ...]]) -> None:
    assert blocks(build("resnet20", classes=10, image_shape=(3, 32, 32), options=options)) == expected


def test_blocks_without_skips_say_so() -> None:
    plain = build("resnet20", classes=10, image_shape=(3, 32, 32), options={"skips": False})
    expected = [(name, shape, "none", down, where) for name, shape, _, down, where in cifar("pad", "post-activation")]
    assert blocks(plain) == expected


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("resnet50", "bottleneck"),
        ("torchvision:resnet50", "bottleneck"),
        ("torchvision:wide_resnet50_2", "bottleneck"),
        ("torchvision:resnext50_32x4d", "bottleneck"),
        ("torchvision:resnet34", "basic"),
    ],
)
def test_resnets_of_50_and_34_layers(spec: str, kind: str) -> None:
    found = measure_anatomy(load_model(spec, classes=10, image_shape=(3, 64, 64)), image_shape=(3, 64, 64)).blocks
    prefix = "model." if ":" in spec else ""
    assert [block.name for block in found] == [
        f"{prefix}layer{stage}.{i}" for stage, count in enumerate((3, 4, 6, 3), start=1) for i in range(count)
    ]
    first = {f"{prefix}layer{stage}.0" for stage in (1, 2, 3, 4)}
    projections = first if kind == "bottleneck" else first - {f"{prefix}layer1.0"}
    assert {block.name for block in found if block.skip == "projection"} == projections
    assert {block.name for block in found if block.skip == "identity"} == {block.name for block in found} - projections
    assert {block.name for block in found if block.downsamples} == first - {f"{prefix}layer1.0"}
    assert {block.shape for block in found} == {kind}
    assert {block.norm_placement for block in found} == {"post-activation"}


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        ("torchvision:densenet121", set()),
        ("torchvision:shufflenet_v2_x0_5", set()),
        ("torchvision:googlenet", set()),
        ("torchvision:squeezenet1_1", set()),
        ("torchvision:mobilenet_v2", {("inverted", "identity", "unknown"), ("inverted", "none", "unknown")}),
        ("torchvision:efficientnet_b0", {("inverted", "identity", "unknown")}),
        ("torchvision:vit_b_32,image_size=64", {("other", "identity", "pre-norm")}),
        ("torchvision:swin_t", {("other", "identity", "pre-norm")}),
    ],
)
def test_other_families_are_told_right_or_not_at_all(spec: str, kinds: set[tuple[str, str, str]]) -> None:
    found = measure_anatomy(load_model(spec, classes=10, image_shape=(3, 64, 64)), image_shape=(3, 64, 64)).blocks
    assert {(block.shape, block.skip, block.norm_placement) for block in found} == kinds


@pytest.mark.parametrize(
    ("name", "kind", "placement"),
    [
        ("seresnet18", "basic", "post-activation"),
        ("seresnet50", "bottleneck", "post-activation"),
        ("resnet18d", "basic", "post-activation"),
        ("resnetv2_50", "bottleneck", "pre-activation"),
        ("nf_resnet26", "bottleneck", "none"),
        ("res2net50_26w_4s", "other", "post-activation"),
    ],
)
def test_timms_resnets(name: str, kind: str, placement: str) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    found = measure_anatomy(load_model(f"timm:{name}", classes=10, image_shape=(3, 64, 64)), image_shape=(3, 64, 64))
    kinds = {(block.shape, block.norm_placement) for block in found.blocks}
    assert kinds == {(kind, placement)}
    assert {block.skip for block in found.blocks} == {"identity", "projection"}
    assert len({block.name for block in found.blocks}) == len(found.blocks)


class Root(nn.Module):
    """A residual network in one forward, with nothing but functions and layers."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        y = self.norm2(self.two(F.relu(self.norm1(self.one(x)))))
        if self.how == "x + y":
            x = x + y
        elif self.how == "y += x":
            y += x
            x = y
        elif self.how == "torch.add":
            x = torch.add(y, x)
        elif self.how == "copy":
            x = x.clone() + y.view(y.shape)
        elif self.how == "product":
            x = x * y
        elif self.how == "slice":
            x = torch.cat([x[:, :4] + y[:, 4:], x[:, 4:]], dim=1)
        elif self.how == "scaled":
            x = 0.5 * x + y
        return self.head(F.relu(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("how", ["x + y", "y += x", "torch.add", "copy"])
def test_an_addition_is_seen_however_it_is_written(how: str) -> None:
    assert blocks(Root(how)) == [("", "basic", "identity", False, "post-activation")]


@pytest.mark.parametrize("how", ["product", "slice", "scaled"])
def test_what_is_no_residual_block_is_not_called_one(how: str) -> None:
    assert blocks(Root(how)) == []


class PostNorm(nn.Module):
    """The transformer block of 2017: norm(x + f(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.mlp(x))


def test_post_norm() -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Linear(16, 6), PostNorm(), PostNorm(), nn.Flatten(), nn.Linear(18, 2))
    assert blocks(model, (3, 4, 4)) == [(str(i), "other", "identity", False, "post-norm") for i in (2, 3)]


def test_sums_of_equal_branches_are_no_blocks() -> None:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)) for _ in range(2))

        def forward(self, images: Tensor) -> Tensor:
            return (self.a(images) + self.b(images)).mean(dim=(2, 3))

    assert blocks(Ensemble()) == []


class Body(nn.Module):
    """Two convolutions in a row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.norm(self.one(x))))


class Around(nn.Module):
    """A skip around a body; ``how`` says which."""

    def __init__(self, how: str, channels: int = 3) -> None:
        super().__init__()
        self.how = how
        self.body = Body(channels)
        self.other = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "whole":
            return F.relu(x + self.body(x))
        if self.how == "piece":
            kept, changed = x.repeat(1, 2, 1, 1).chunk(2, dim=1)
            return torch.cat([kept, F.relu(changed + self.body(changed))], dim=1).mean(dim=1, keepdim=True) * x
        if self.how == "side by side":
            return F.relu(x + (self.body.one(x) + self.body.two(x)))
        if self.how == "one against one":
            return F.relu(self.body.one(x) + self.other(x))
        return F.relu(self.body(x))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("whole", [("", "basic", "identity", "post-activation")]),
        ("piece", [("", "basic", "identity", "post-activation")]),
        ("side by side", [("", "other", "identity", "none")]),
        ("one against one", []),
        ("no skip", [("", "basic", "none", "post-activation")]),
    ],
)
def test_what_is_a_block_and_what_only_looks_like_one(how: str, expected: list[tuple[str, ...]]) -> None:
    model = nn.Sequential(Around(how), Around(how), nn.Flatten(), nn.LazyLinear(2))
    model(torch.rand(1, 3, 6, 6))
    found = [(name, shape, skip, placement) for name, shape, skip, _, placement in blocks(model, (3, 6, 6))]
    assert found == [(f"{i}{suffix}", *facts) for i in (0, 1) for suffix, *facts in expected]


def test_a_body_that_occurs_once_is_no_kind_of_block() -> None:
    model = nn.Sequential(Body(3), nn.Flatten(), nn.LazyLinear(2))
    model(torch.rand(1, 3, 6, 6))
    assert blocks(model, (3, 6, 6)) == []


def test_residual_blocks_on_vectors_count_too() -> None:
    class Vector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(F.relu(self.up(self.norm(x))))

    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), Vector(), Vector(), nn.Linear(6, 2))
    assert blocks(model, (3, 2, 2)) == [(str(i), "other", "identity", False, "pre-norm") for i in (2, 3)]


def test_records_are_records() -> None:
    found = measure_anatomy(build("resnet20", classes=10, image_shape=(3, 32, 32)), image_shape=(3, 32, 32)).blocks
    assert [type(block) for block in found] == [BlockAnatomy] * 9
