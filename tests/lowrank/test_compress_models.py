"""Compression of models of other people: what they overwrite, share, call twice, or return."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import assay
from assay.compression import CompressionPlan, save_compressed
from assay.compression import network as candidates
from assay.compression.calibration import METRIC_IMAGES, TEMPERATURE, capture, find_sites
from assay.compression.network import Latency, compress_network, uniform
from assay.models.factorized import LayerFactors, install, read_structure
from assay.records.compression import CompressionReport
from assay.report.compression_page import render_compression_page
from assay.report.terminal.lowrank import print_compression

N, K = 65, 4  # one more than a batch


@pytest.fixture(scope="module")
def data() -> assay.ImageDataset:
    """Sorted by class."""
    labels = torch.arange(N) * K // N
    pixels = torch.randint(0, 120, (N, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    pixels[torch.arange(N), labels % 3] += 90
    return assay.ImageDataset(pixels.to(torch.uint8), labels, ("a", "b", "c", "d"), split="train")


@pytest.fixture
def faster_when_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny layers never get faster: time is made to follow the work."""

    def by_parameters(modules: list[nn.Module], inputs: torch.Tensor) -> tuple[Latency, ...]:
        sizes = [float(sum(p.numel() for p in m.parameters())) for m in modules]
        return tuple(Latency(size, size, size, size) for size in sizes)

    monkeypatch.setattr(candidates, "measure_latencies", by_parameters)


class Network(nn.Module):
    """Two convolutions with a residual connection, and a head; ``around`` changes how the second is used."""

    def __init__(self, around: Callable[[Network, torch.Tensor], torch.Tensor] | None = None, **layers: nn.Module):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, K)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.around = around or (lambda network, x: network.second(x).relu() + x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.around(self, self.first(x).relu()).mean((2, 3)))


def residual(network: Network, x: torch.Tensor) -> torch.Tensor:
    x += network.second(x)
    return x


def overwritten_input(network: Network, x: torch.Tensor) -> torch.Tensor:
    y = network.second(x)
    x.mul_(0.5)
    return y.relu_() + x


TWINS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "relu": (lambda n, x: F.relu(n.second(x), inplace=True) + x, lambda n, x: F.relu(n.second(x)) + x),
    "hardswish": (lambda n, x: F.hardswish(n.second(x), inplace=True), lambda n, x: F.hardswish(n.second(x))),
    "dropout": (lambda n, x: F.dropout(n.second(x), training=False, inplace=True), lambda n, x: n.second(x)),
    "tanh": (lambda n, x: n.second(x).tanh_(), lambda n, x: n.second(x).tanh()),
    "residual": (residual, lambda n, x: x + n.second(x)),
    "output added to": (lambda n, x: n.second(x).add_(x).mul_(2), lambda n, x: 2 * (n.second(x) + x)),
    "input": (overwritten_input, lambda n, x: n.second(x).relu() + 0.5 * x),
}


@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS)
def test_what_is_overwritten_later_changes_no_number(twins: tuple[Any, Any], data: assay.ImageDataset) -> None:
    overwriting, plain = (Network(around) for around in twins)
    found, expected = find_sites(overwriting, data), find_sites(plain, data)
    assert [site.name for site in found] == [site.name for site in expected] == ["first", "second", "head"]
    for site, twin in zip(found, expected, strict=True):
        torch.testing.assert_close(site.metric, twin.metric, rtol=1e-4, atol=0)
        for values, twins_values in zip(
            capture(overwriting, [site.name], data)[site.name],
            capture(plain, [site.name], data)[site.name],
            strict=True,
        ):
            torch.testing.assert_close(values, twins_values)


class Weighed(nn.Module):
    """Logits (h, −h) at h = 0, with dh/dy of sample i its mean pixel times (1, 2, …): both classes weigh alike."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x.mean((2, 3)))
        h = ((y - y.detach()) @ torch.arange(1.0, 6)) * x.mean((1, 2, 3))
        return torch.stack((h, -h), dim=1)


@pytest.mark.parametrize("batch_size", [64, 13, 1])
def test_the_metric_weighs_samples_whatever_the_batches(batch_size: int, data: assay.ImageDataset) -> None:
    assert len(data) < METRIC_IMAGES
    two = assay.ImageDataset(data.images, data.labels % 2, ("a", "b"))
    metric = find_sites(Weighed(), two, batch_size=batch_size)[0].metric
    slope = torch.arange(1.0, 6, dtype=torch.float64) / TEMPERATURE
    scale = (data.images.double() / 255).mean((1, 2, 3)).square().mean()
    torch.testing.assert_close(metric, scale * torch.outer(slope, slope), rtol=1e-5, atol=0)


class Padded(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.feed = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return self.feed(self.attention(rows, rows, rows)[0]).transpose(1, 2).reshape(x.shape)


def tied(network: Network, x: torch.Tensor) -> torch.Tensor:
    return F.conv_transpose2d(network.second(x), network.second.weight, padding=1)


def hidden_from_its_name() -> Network:
    network = Network(lambda n, x: n.__dict__["steps"][0](x))
    network.__dict__["steps"] = [network.second]
    return network


def tied_to_another() -> Network:
    network = Network(lambda n, x: n.second(x) + n.third(x), third=nn.Conv2d(8, 8, 3, padding=1))
    network.third.weight = network.second.weight
    return network


def in_two_places() -> Network:
    network = Network()
    network.also = network.second
    return network


def in_pieces(network: Network, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([network.second(part) for part in x.split(1)])


def on_rows(network: Network, x: torch.Tensor) -> torch.Tensor:
    return network.row(x.flatten(2).permute(2, 0, 1)).permute(1, 2, 0).reshape(x.shape)


conv = nn.Conv2d
AWKWARD: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "weight_norm": (lambda: Network(second=parametrizations.weight_norm(conv(8, 8, 3, padding=1))), {"second": "com"}),
    "spectral_norm": (lambda: Network(second=nn.utils.spectral_norm(conv(8, 8, 3, padding=1))), {"second": "com"}),
    "pruned": (
        lambda: Network(second=prune.l1_unstructured(conv(8, 8, 3, padding=1), "weight", 0.5)),
        {"second": "com"},
    ),
    "a forward of its own": (lambda: Network(second=Padded(8, 8, 3, padding=1)), {"second": "Padded has no factors"}),
    "groups": (lambda: Network(second=conv(8, 8, 3, padding=1, groups=2)), {"second": "it has 2 groups"}),
    "circular": (lambda: Network(second=conv(8, 8, 3, padding=1, padding_mode="circular")), {"second": "circular"}),
    "reflect": (lambda: Network(second=conv(8, 8, 3, padding=1, padding_mode="reflect")), {"second": "reflect"}),
    "transposed": (
        lambda: Network(second=nn.ConvTranspose2d(8, 8, 3, padding=1)),
        {"second": "ConvTranspose2d has no"},
    ),
    "1d": (
        lambda: Network(lambda n, x: n.second(x.flatten(2)).reshape(x.shape), second=nn.Conv1d(8, 8, 1)),
        {"second": "Conv1d has no"},
    ),
    "3d": (
        lambda: Network(lambda n, x: n.second(x[:, None])[:, 0], second=nn.Conv3d(1, 1, 3, padding=1)),
        {"second": "Conv3d has no"},
    ),
    "called twice": (lambda: Network(lambda n, x: n.second(n.second(x))), {"second": "calls it 2 times"}),
    "called image by image": (lambda: Network(in_pieces), {"second": "times"}),
    "never called": (lambda: Network(lambda n, x: x), {"second": "never calls it"}),
    "by its weight": (lambda: Network(lambda n, x: F.conv2d(x, n.second.weight)), {"second": "never calls it"}),
    "also by its weight": (lambda: Network(tied), {"second": "more of it than its output"}),
    "under no name": (hidden_from_its_name, {"second": "another way than its name"}),
    "a shared weight": (tied_to_another, {"second": "shares its weight", "third": "shares its weight"}),
    "in two places": (in_two_places, {"second": "more than one place"}),
    "no gradient": (lambda: Network(lambda n, x: n.second(x).detach() + x), {"second": "no gradient"}),
    "attention": (
        lambda: Network(second=Attending()),
        {
            "second.attention.out_proj": "never",
            "second.feed.self_attn.out_proj": "never",
            "second.feed.linear1": "more of it than its output",
            "second.feed.linear2": "more of it than its output",
        },
    ),
    "positions first": (lambda: Network(on_rows, row=nn.Linear(8, 8)), {"second": "never", "row": "its batch is not"}),
    "hooked": (
        lambda: (n := Network(), n.second.register_forward_hook(lambda m, a, y: y * 2))[0],
        {"second": "it has hooks"},
    ),
}


@pytest.mark.parametrize("case", AWKWARD.values(), ids=AWKWARD)
def test_layers_that_cannot_be_replaced_are_left_and_named(
    case: tuple[Callable[[], nn.Module], dict[str, str]], data: assay.ImageDataset
) -> None:
    make, reasons = case
    model, left_out = make().eval(), dict[str, str]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sites = find_sites(model, data, left_out=left_out)
    assert left_out.keys() == reasons.keys() and all(reason in left_out[name] for name, reason in reasons.items())
    assert [site.name for site in sites] == ["first", "head"]
    fitted = compress_network(model, uniform(model, sites, share=1.0), data, sites=sites)
    images = data.images.float() / 255
    with torch.no_grad():
        torch.testing.assert_close(fitted.model(images), model(images), rtol=0.02, atol=0.02)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Squeezing(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze()


class RefusesFew(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) < 4:
            raise ValueError("four images at least")
        return super().forward(x)


class RefusesMany(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 5:
            raise ValueError("five images at most")
        return super().forward(x)


class ByKeyword(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(input=self.second(input=self.first(input=x).relu()).relu().mean((2, 3)))


class OverTokens(Network):
    """The linear layer sees (N, T, C), the second convolution (N·2, C, H/2, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halves = self.first(x).relu().unflatten(2, (2, 4)).transpose(1, 2).flatten(0, 1)
        rows = self.second(halves).relu().flatten(2).transpose(1, 2)
        return self.head(rows).mean(1).unflatten(0, (-1, 2)).mean(1)


class Keeping(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.features = self.first(x).relu()
        return self.head(self.second(self.features).relu().mean((2, 3)))


RUNS = {
    "squeezes": Squeezing,
    "refuses few": RefusesFew,
    "refuses many": RefusesMany,
    "by keyword": ByKeyword,
    "over tokens": OverTokens,
    "keeps features": Keeping,
    "in-place": lambda: Network(residual),
    "bfloat16": lambda: Network().bfloat16(),
    "float16": lambda: Network().half(),
    "float64": lambda: Network().double(),
    "frozen, in training mode": lambda: Network().train().requires_grad_(False),
    "strided and dilated": lambda: Network(
        lambda n, x: n.second(x), second=nn.Conv2d(8, 8, 3, stride=2, dilation=2, padding=2)
    ),
}


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_models_that_are_awkward_to_call_are_compressed(
    make: Callable[[], nn.Module], data: assay.ImageDataset, faster_when_smaller: None
) -> None:
    model = make()
    modes = [module.training for module in model.modules()]
    plan = CompressionPlan(share=0.7, calibration=33, validation=16, batch=2, attack=None, curve=(1.0,))
    done = assay.compress(model, data, data, plan)
    assert done.report.after.flops <= 0.7 * done.report.before.flops and done.factorization
    assert done.report.left_out == ()
    full = next(point for point in done.report.curve if point.method == "data-aware")
    assert full.accuracy == pytest.approx(done.report.curve_top, abs=0.08)
    assert {p.dtype for p in done.model.parameters()} == {p.dtype for p in model.parameters()}
    assert [module.training for module in model.modules()] == modes


def returning(change: Callable[[torch.Tensor], Any]) -> nn.Module:
    class Returning(Network):
        def forward(self, x: torch.Tensor) -> Any:
            return change(super().forward(x))

    return Returning()


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda y: {"out": y}, "dict, of which 'out' would fit"),
        (lambda y: (y.sum(), y), "tuple, of which 1 would fit"),
        (lambda y: y[:, 0], r"torch.float32 \(2,\) for 2 images"),
        (lambda y: y[:, :3], r"torch.float32 \(2, 3\) for 2 images"),
        (lambda y: y.argmax(1), "torch.int64"),
    ],
    ids=["dict", "tuple", "(N,)", "other classes", "classes"],
)
def test_other_outputs_are_one_line(change: Callable[..., Any], got: str, data: assay.ImageDataset) -> None:
    with pytest.raises(assay.ModelError, match=rf"^model output: expected one tensor of logits .*got {got}"):
        assay.compress(returning(change), data, data, CompressionPlan(share=0.5))


def test_a_program_has_no_layers_to_replace(data: assay.ImageDataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, K))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and in use
        program = torch.jit.trace(model, torch.rand(2, 3, 8, 8))
    with pytest.raises(assay.ModelError, match=r"linear or convolutional layers that can be factorised, got none"):
        assay.compress(program, data, data, CompressionPlan(share=0.5))


def test_other_data_to_test_on_is_one_line(data: assay.ImageDataset) -> None:
    turned = assay.ImageDataset(data.images, data.labels, ("d", "c", "b", "a"))
    with pytest.raises(assay.DataError, match="test: classes: expected the 4 classes of train, in their order: a, b"):
        assay.compress(Network(), data, turned, CompressionPlan(share=0.5))
    with pytest.raises(assay.DataError, match=r"test: expected images of the shape of train, \(3, 8, 8\)"):
        smaller = assay.ImageDataset(data.images[..., :6], data.labels, data.classes)
        assay.compress(Network(), data, smaller, CompressionPlan(share=0.5))


def saved(out: Path, model: nn.Module, factorization: tuple[LayerFactors, ...], spec: str) -> None:
    names = tuple("0123456789")
    save_compressed(out, model, factorization, spec=spec, classes=names, image_shape=(1, 8, 8))


def test_a_network_compressed_twice_loads_again(tmp_path: Path) -> None:
    network = assay.load_model("mlp", classes=10, image_shape=(1, 8, 8))
    name = next(name for name, layer in network.named_modules() if isinstance(layer, nn.Linear))
    first = (LayerFactors(layer=name, kind="linear", rank=8),)
    second = (LayerFactors(layer=f"{name}.0", kind="linear", rank=4),)
    saved(tmp_path / "once", install(network, first), first, "mlp")
    saved(tmp_path / "twice", install(network, second), second, str(tmp_path / "once"))
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(assay.load_model(tmp_path / "twice").eval()(images), network.eval()(images))
    assert read_structure(tmp_path / "twice") == (*first, *second)


def test_what_would_not_load_as_the_model_is_not_written(tmp_path: Path) -> None:
    network = assay.load_model("mlp", classes=10, image_shape=(1, 8, 8))
    saved(tmp_path, network, (), "mlp")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name = next(name for name, layer in network.named_modules() if isinstance(layer, nn.Linear))
    unlike = (LayerFactors(layer=name, kind="linear", rank=8),)  # the network has the layer in one piece
    with pytest.raises(assay.ModelError, match="model.safetensors"):
        saved(tmp_path, network, unlike, "mlp")
    other = nn.Sequential(network, nn.Softmax(1))
    with pytest.raises(assay.ModelError):
        saved(tmp_path, other, (), "mlp")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    saved(tmp_path, network, (), "net.py:make")  # code of the user's: no configuration, and none of another model
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_target_that_is_not_met_is_no_result(
    data: assay.ImageDataset, faster_when_smaller: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmet = lambda layers, **_: tuple(layer.candidates[0] for layer in layers)  # noqa: E731 - nothing is replaced
    monkeypatch.setattr(candidates, "choose", unmet)
    plan = CompressionPlan(share=0.7, calibration=33, validation=16, batch=2, attack=None, curve=())
    with pytest.raises(assay.OptionError, match=r"^target: expected a network whose FLOPs come to 0.7x, got 1.000x"):
        assay.compress(Network(), data, data, plan)


def test_latency_is_that_of_the_batch_that_is_named(data: assay.ImageDataset, faster_when_smaller: None) -> None:
    sizes: list[int] = []

    class Counting(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    plan = CompressionPlan(max_drop=99, calibration=33, validation=16, batch=100, attack=None, curve=())
    done = assay.compress(Counting(), data, data, plan)
    assert done.report.before.batch == 100 and 100 in sizes and len(data) < 100


def test_what_is_left_out_is_printed_and_on_the_page(data: assay.ImageDataset, faster_when_smaller: None) -> None:
    plan = CompressionPlan(max_drop=99, calibration=33, validation=16, batch=2, attack=None, curve=())
    report = assay.compress(Network(second=nn.Conv2d(8, 8, 3, padding=1, groups=2)), data, data, plan).report
    assert report.left_out == (("second", "it has 2 groups"),)
    assert CompressionReport.model_validate_json(report.model_dump_json()) == report
    assert "it has 2 groups" in render_compression_page(report)
    console = Console(record=True, width=200, file=io.StringIO())
    print_compression(report, console, out=Path("out"))
    assert "left out   second: it has 2 groups" in console.export_text()
