from __future__ import annotations

import inspect
from collections.abc import Callable
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from assay.models.forward_pass import IMAGES, record_forward

Shape = tuple[int, int, int]


class Calls(nn.Module):
    """A function of the images as a model."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def flops(model: nn.Module | Callable[[Tensor], Tensor], shape: Shape) -> float:
    """What we count, for one image."""
    module = model if isinstance(model, nn.Module) else Calls(model)
    return sum(operation.flops for operation in record_forward(module, image_shape=shape).operations) / IMAGES


def torchs(model: nn.Module, shape: Shape) -> int:
    """What torch counts, which knows convolutions and products only."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.rand(1, *shape))
    return int(counter.get_total_flops())


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(5, 9),
    st.integers(5, 9),
    st.booleans(),
    st.booleans(),
)
def test_convolutions_cost_what_torch_and_the_closed_form_say(
    into: int,
    out: int,
    groups: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    h: int,
    w: int,
    bias: bool,
    transposed: bool,
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(
        into * groups,
        out * groups,
        kernel,
        stride=stride,
        padding=min(padding, dilation * (kernel - 1)),
        dilation=dilation,
        groups=groups,
        bias=bias,
    )
    shape = (into * groups, h, w)
    result = conv(torch.rand(1, *shape))
    places = h * w if transposed else prod(result.shape[2:])
    closed_form = 2 * into * out * groups * kernel**2 * places
    assert flops(conv, shape) == closed_form == torchs(conv, shape)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_linear_layers_cost_the_same_on_any_leading_sizes(a: int, b: int, into: int, out: int, bias: bool) -> None:
    linear = nn.Linear(into, out, bias=bias)
    assert flops(linear, (a, b, into)) == 2 * a * b * into * out == torchs(linear, (a, b, into))


X = torch.rand(4, 4)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.BatchNorm2d(3), (3, 4, 5), 2 * 60),
        (nn.BatchNorm2d(3, track_running_stats=False), (3, 4, 5), 7 * 60),
        (nn.InstanceNorm2d(3), (3, 4, 5), 5 * 60),
        (nn.GroupNorm(1, 3), (3, 4, 5), 7 * 60),
        (nn.LayerNorm(5), (3, 4, 5), 7 * 60),
        (nn.LayerNorm(5, elementwise_affine=False), (3, 4, 5), 5 * 60),
        (nn.ReLU(), (3, 4, 5), 60),
        (nn.ReLU(inplace=True), (3, 4, 5), 60),
        (nn.GELU(), (3, 4, 5), 60),
        (nn.ReLU6(), (3, 4, 5), 60),
        (nn.PReLU(), (3, 4, 5), 60),
        (nn.Softmax(1), (3, 4, 5), 5 * 60),
        (nn.MaxPool2d(2), (3, 4, 6), 3 * 2 * 3 * 4),
        (nn.MaxPool2d(3, stride=2, padding=1), (3, 4, 6), 3 * 2 * 3 * 9),
        (nn.AvgPool2d((2, 3)), (3, 4, 6), 3 * 2 * 2 * 6),
        (nn.AdaptiveAvgPool2d(1), (3, 4, 6), 72),
        (nn.AdaptiveAvgPool2d(2), (3, 4, 6), 72),
        (nn.Dropout(), (3, 4, 5), 0),
        (nn.Flatten(), (3, 4, 5), 0),
        (nn.Identity(), (3, 4, 5), 0),
        (nn.ZeroPad2d(1), (3, 4, 5), 0),
        (nn.PixelShuffle(2), (4, 2, 2), 0),
        (lambda x: x + x, (3, 4, 5), 60),
        (lambda x: x.add_(1), (3, 4, 5), 60),
        (lambda x: torch.cat([x, x]), (3, 4, 5), 0),
        (lambda x: F.relu(x).sum(dim=1), (3, 4, 5), 120),
        (lambda x: x @ X, (3, 4, 4), 2 * 12 * 16),
        (lambda x: torch.einsum("ncij,nckj->ncik", x, x), (3, 4, 5), 2 * 3 * 4 * 4 * 5),
        (lambda x: F.scaled_dot_product_attention(x, x, x), (3, 4, 5), 3 * 16 * (4 * 5 + 5)),
    ],
    ids=lambda value: "function" if inspect.isfunction(value) else str(value),
)
def test_other_operations_cost_what_the_convention_says(model: object, shape: Shape, expected: int) -> None:
    assert flops(model, shape) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_layers_use_every_weight_once_a_step(kind: type[nn.RNNBase], gates: int, layers: int) -> None:
    steps, into, hidden = 6, 5, 4
    cell = kind(into, hidden, num_layers=layers, batch_first=True)
    found = record_forward(Calls(lambda x: cell(x[:, 0])[0]), image_shape=(1, steps, into))
    products = sum(operation.flops for operation in found.operations if operation.kind == "weight") / IMAGES
    from_below = gates * hidden * (into + (layers - 1) * hidden)
    from_before = layers * gates * hidden * hidden
    # Step by step the first state is a constant zero, and what does not depend on the images is left out.
    assert products == 2 * (steps * from_below + (steps - (kind is not nn.LSTM)) * from_before)


def test_attention_is_seen_in_the_layer_that_torch_would_fuse() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model = Calls(lambda x: layer(x[:, 0]))
    model.layer = layer
    tokens = 5
    products = 2 * tokens * (8 * 24 + 8 * 8 + 8 * 16 + 16 * 8) + 2 * 2 * tokens * tokens * 8
    found = record_forward(model, image_shape=(1, tokens, 8))
    counted = sum(operation.flops for operation in found.operations if operation.kind in {"weight", "product"})
    assert products <= counted / IMAGES <= products + 5 * 2 * tokens * tokens  # a fused softmax counts with it
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x + 1, "arithmetic"),
        (lambda x: x * x, "arithmetic"),
        (lambda x: x + x[:, :1], "sum"),
        (lambda x: x - x.mean(), "sum"),
        (lambda x: x @ X, "weight"),
        (lambda x: x @ x, "product"),
        (lambda x: torch.cat([x, torch.zeros(2, 3, 4, 4)]), "pad"),
        (lambda x: torch.cat([x, x]), "join"),
        (lambda x: F.pad(x, (1, 1)), "pad"),
        (lambda x: x.split(2, dim=-1)[1].exp(), "arithmetic"),
        (lambda x: F.interpolate(x, scale_factor=2), "resample"),
        (lambda x: x.flatten(1), "move"),
    ],
)
def test_kinds_of_operations(function: Callable[[Tensor], Tensor], kind: str) -> None:
    operations = record_forward(Calls(function), image_shape=(3, 4, 4)).operations
    kinds = [operation.kind for operation in operations]
    assert kind in kinds[-2:]  # a product is followed by a view
    assert kind == "move" or set(kinds[kinds.index(kind) + 1 :]) <= {"move"}
