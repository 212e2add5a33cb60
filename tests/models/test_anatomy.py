from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from assay.models.anatomy import measure_anatomy
from assay.models.architectures import build
from assay.records.anatomy import Anatomy

Refused = Callable[[Callable[[], object]], str]


def rows(found: Anatomy) -> dict[str, tuple[object, ...]]:
    return {
        layer.name: (layer.type, layer.output_shape, layer.parameters, layer.flops, layer.calls)
        for layer in found.layers
    }


class Small(nn.Module):
    """What is easy to miss: layers reused, tied, unused and used by their weight, and a functional call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.twice = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.twice.weight
        self.unused = nn.Linear(9, 9)
        self.by_weight = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.conv(images)).mean(dim=(2, 3))
        x = self.act(self.twice(self.twice(x)))
        x = self.head(F.relu(x) * self.scale)
        return F.linear(x, self.by_weight.weight, self.by_weight.bias)


def test_rows_of_a_model_of_odd_parts() -> None:
    found = measure_anatomy(Small(), image_shape=(3, 8, 8), name="small")
    assert rows(found) == {
        "conv": ("Conv2d", (4, 8, 8), 112, 2 * 27 * 4 * 64, 1),
        "act": ("ReLU", (4,), 0, 256 + 4, 2),
        "": ("Small", (2,), 4 + 4 * 2 + 2, 256 + 4 + 4 + 2 * 4 * 2, 1),
        "twice": ("Linear", (4,), 20, 2 * 2 * 16, 2),
        "head": ("Linear", (4,), 0, 2 * 16, 1),
        "unused": ("Linear", (), 90, 0, 0),
    }
    assert [layer.name for layer in found.layers] == ["", "conv", "act", "twice", "head", "unused"]
    assert (found.depth, found.classes, found.parameters) == (5, 2, sum(p.numel() for p in Small().parameters()))
    assert found.layers[-1].detail == "never runs"


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet20", (3, 32, 32)), ("resnet50", (3, 64, 64)), ("allcnn", (1, 28, 28)), ("mlp", (3, 8, 8))],
)
def test_totals_are_the_sums_of_the_rows_and_products_are_torchs(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, classes=7, image_shape=shape)
    found = measure_anatomy(model, image_shape=shape, name=name)
    assert (found.model, found.input_shape, found.classes) == (name, shape, 7)
    assert (
        found.parameters
        == sum(layer.parameters for layer in found.layers)
        == sum(p.numel() for p in model.parameters())
    )
    assert found.flops == sum(layer.flops for layer in found.layers)
    assert found.buffers == sum(buffer.numel() for buffer in model.buffers())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.rand(1, *shape))
    assert sum(x.flops for x in found.layers if x.type in {"Conv2d", "Linear"}) == counter.get_total_flops()
    assert Anatomy.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("name", "parameters", "published"),
    [  # both as torchvision's documentation states them
        ("resnet50", 25_557_032, 4.089),
        ("mobilenet_v2", 3_504_872, 0.301),
        ("vit_b_32", 88_224_232, 4.409),
    ],
)
def test_multiply_adds_are_those_that_torchvision_states(name: str, parameters: int, published: float) -> None:
    found = measure_anatomy(getattr(torchvision.models, name)(), image_shape=(3, 224, 224))
    assert (found.parameters, found.classes) == (parameters, 1000)
    assert found.multiply_adds is not None
    assert found.multiply_adds / 1e9 == pytest.approx(published, abs=0.002)
    assert found.flops >= 2 * found.multiply_adds


def test_efficientnet_lite0_has_the_published_counts() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    network = package.EfficientNet.from_name("efficientnet-lite0")
    found = measure_anatomy(network, image_shape=(3, 224, 224))
    assert found.parameters == 4_652_008
    assert found.multiply_adds == 385_187_552
    assert found.flops - found.multiply_adds == pytest.approx(407e6, rel=0.01)  # norms and activations counted in


def test_resnet20_in_numbers() -> None:
    found = measure_anatomy(build("resnet20", classes=10, image_shape=(3, 32, 32)), image_shape=(3, 32, 32))
    # 3·16·9·32² for the stem; six 16→16 at 32²; then 16→32 and five 32→32 at 16²; then 32→64 and five 64→64 at 8²
    macs = 27 * 16 * 1024 + 6 * 2304 * 1024 + (4608 + 5 * 9216) * 256 + (18432 + 5 * 36864) * 64 + 640
    outputs = 7 * 16 * 1024 + 6 * 32 * 256 + 6 * 64 * 64  # of every convolution, norm and, blocks' ends apart, ReLU
    additions = 3 * (16 * 1024 + 32 * 256 + 64 * 64)
    relus = outputs
    assert found.flops == 2 * macs + 2 * outputs + relus + additions + 2 * 3072 + 4096
    assert (found.depth, found.parameters, found.trainable_parameters) == (20, 269_722, 269_722)
    assert (found.classes, found.normalizes_input) == (10, True)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("resnet18", 18),
        ("resnet34", 34),
        ("resnet50", 50),
        ("resnet56", 56),
        ("resnet110", 110),
        ("allcnn", 9),
        ("mlp", 3),
    ],
)
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_depth_is_what_the_name_says(name: str, depth: int, shortcut: str) -> None:
    options = {"shortcut": shortcut, "width": 0.1} if "resnet" in name else {}
    if not options and shortcut == "B":
        options = {"width": 8}
    model = build(name, classes=10, image_shape=(3, 16, 16), options=options)
    assert measure_anatomy(model, image_shape=(3, 16, 16)).depth == depth


def test_depth_is_the_longest_way_not_the_number_of_layers() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.long = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
            self.short = nn.Linear(4, 4)
            self.side = nn.Sequential(*(nn.Linear(4, 4) for _ in range(7)))

        def forward(self, images: Tensor) -> Tensor:
            x = images.mean(dim=(2, 3))
            self.side(x)  # does not reach the output
            return self.short(x) * self.long(x)

    assert measure_anatomy(Branches(), image_shape=(4, 2, 2)).depth == 3


class Written(nn.Module):
    """Attention written out by hand, pieces of one product."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)

    def forward(self, images: Tensor) -> Tensor:
        q, k, v = self.qkv(images[:, 0]).chunk(3, dim=-1)
        return ((q @ k.transpose(1, 2)).softmax(-1) @ v).mean(dim=1)


def test_functional_work_has_a_row_of_its_own() -> None:
    found = measure_anatomy(Written(), image_shape=(1, 5, 6))
    attention = 2 * 5 * 5 * 6 + 5 * 25 + 2 * 5 * 5 * 6
    assert rows(found)[""] == ("Written", (6,), 0, attention + 30, 1)
    assert found.depth == 1
    assert found.layers[-1].detail == "bmm, softmax, mean"


def test_a_parametrised_layer_is_one_row() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(16, 2))
    found = measure_anatomy(model, image_shape=(3, 4, 4))
    assert [layer.name for layer in found.layers] == ["0", "1", "2"]
    assert found.layers[0].parameters == 3 * 4 * 9 + 4 + 4
    assert found.layers[0].flops >= 2 * 27 * 4 * 4


def test_multihead_attention_is_one_row_with_all_its_parameters() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            x = images[:, 0]
            return self.attention(x, x, x, need_weights=False)[0].mean(dim=1)

    found = measure_anatomy(Model(), image_shape=(1, 5, 8))
    assert rows(found)["attention"][:3] == ("MultiheadAttention", (5, 8), 8 * 24 + 24 + 64 + 8)
    assert [layer.name for layer in found.layers] == ["attention", ""]


@pytest.mark.parametrize(
    ("normalization", "model", "expected"),
    [
        ("imagenet", "resnet20", True),
        ("none", "resnet20", False),
        ("none", "mlp", False),
        ("cifar10", "mlp", True),
    ],
)
def test_whether_pixels_reach_the_first_weights(normalization: str, model: str, expected: bool) -> None:
    network = build(model, classes=3, image_shape=(3, 8, 8), normalization=normalization)
    assert measure_anatomy(network, image_shape=(3, 8, 8)).normalizes_input is expected


def test_a_norm_before_the_first_weights_normalises_too() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.Flatten())
    model[0].running_mean.fill_(0.5)
    assert measure_anatomy(model, image_shape=(3, 2, 2)).normalizes_input


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_exactly_as_it_was(training: bool) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3)
    )
    model.train(training)
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.rand_like(model[5].weight)
    seen: list[Tensor] = []
    model[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    before, gradient = copy.deepcopy(model), model[5].weight.grad.clone()
    state = torch.get_rng_state()
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    measure_anatomy(model, image_shape=(3, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for (name, after), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(after, old), name
        assert after.requires_grad == old.requires_grad, name
        assert (after.grad is None) == (name != "5.weight"), name
    assert torch.equal(model[5].weight.grad, gradient)
    for (name, after), old in zip(model.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(after, old), name
    assert torch.backends.mha.get_fastpath_enabled()
    assert len(seen) == 1  # the user's own hook is not in the way, nor disturbed


def test_hooks_go_when_the_model_fails(refused: Refused) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(5, 3))
    message = refused(lambda: measure_anatomy(model, image_shape=(3, 8, 8)))
    assert message.startswith(
        "model(images): expected a model that takes images of shape (N, 3, 8, 8), got RuntimeError"
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


class InPlace(nn.Module):
    """Writes into a view, or into what a view was taken of."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        padded = images.new_zeros(len(images), 6, *images.shape[2:])
        view = padded.view(padded.shape)
        if self.how == "into a view":
            padded[:, 1:5] = self.conv(images)
        else:
            padded += self.conv(images).mean(dim=1, keepdim=True)
        return self.head((padded if self.how == "into a view" else view).mean(dim=(2, 3)))


@pytest.mark.parametrize("how", ["into a view", "behind a view"])
def test_writing_in_place_is_followed(how: str) -> None:
    assert measure_anatomy(InPlace(how), image_shape=(3, 4, 4)).depth == 2


def test_a_batch_folded_into_another_size_is_told_for_one_image() -> None:
    class Windows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(-1, 3, 2, 2)

    model = nn.Sequential(Windows(), nn.Conv2d(3, 5, 1), nn.Flatten())
    shapes = [layer.output_shape for layer in measure_anatomy(model, image_shape=(3, 4, 4)).layers]
    assert shapes == [(4, 3, 2, 2), (4, 5, 2, 2), (4, 20)]


def test_keeps_the_models_own_dtype() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    assert measure_anatomy(model, image_shape=(3, 2, 2)).parameters == 39


def test_takes_models_of_unusual_output() -> None:
    class Structured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 3)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": self.linear(images.flatten(1))}

    assert measure_anatomy(Structured(), image_shape=(3, 2, 2)).classes == 3


def test_a_model_that_returns_no_tensor_is_refused(refused: Refused) -> None:
    class Nothing(nn.Module):
        def forward(self, images: Tensor) -> str:
            return "cat"

    assert (
        refused(lambda: measure_anatomy(Nothing(), image_shape=(1, 2, 2))) == "model output: expected a tensor, got str"
    )


def test_frozen_parameters_are_counted_apart() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model[1].weight.requires_grad_(False)
    found = measure_anatomy(model, image_shape=(3, 2, 2))
    assert (found.parameters, found.trainable_parameters) == (39, 3)


def test_details_name_kernel_stride_groups_and_dilation() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, (3, 1), stride=2, groups=2, dilation=(2, 1)),
        nn.MaxPool2d(2, stride=1, padding=1),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    model(torch.rand(1, 4, 9, 9))
    details = [layer.detail for layer in measure_anatomy(model, image_shape=(4, 9, 9)).layers]
    assert details == ["3×1, stride 2, dilation 2×1, groups 2", "2, stride 1", "p = 0.25", "", "192 → 3"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_model_is_one_row() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)))
    found = measure_anatomy(scripted, image_shape=(3, 4, 4))
    assert [(layer.name, layer.parameters) for layer in found.layers] == [("", 3 * 4 * 9 + 4 + 34)]
    assert found.flops >= 2 * 27 * 4 * 4 + 2 * 32


def test_a_program_that_torch_does_not_run_has_no_numbers(refused: Refused) -> None:
    class Elsewhere(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy().reshape(len(x), -1)[:, :4] * 2)

    message = refused(lambda: measure_anatomy(Elsewhere(), image_shape=(1, 4, 4)))
    assert message.startswith("model(images): expected a model that torch runs on the images, got logits that no")
