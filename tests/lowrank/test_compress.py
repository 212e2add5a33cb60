from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from assay.compression import save_compressed
from assay.compression.calibration import Site, chain_flops, find_sites
from assay.compression.network import (
    Candidate,
    Latency,
    LayerCandidates,
    allocate,
    choose,
    compress_network,
    measure_latencies,
    uniform,
)
from assay.compression.run import CompressionPlan, compress, with_running_statistics
from assay.data.dataset import ImageDataset
from assay.errors import ModelError, OptionError
from assay.lowrank.layers import (
    DAMPING,
    Activations,
    _set_projection,
    balance,
    compose,
    fit_chain,
    rank_curve,
    truncate_weights,
)
from assay.models.factorized import LayerFactors, chain_for, install, read_structure
from assay.models.sources import load_model

KINDS = ["channel", "spatial", "tucker"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(n: int, channels: int, side: int) -> torch.Tensor:
    mix = draw(channels, channels, seed=3) * torch.linspace(0.05, 1, channels)
    return torch.einsum("nchw,dc->ndhw", draw(n, channels, side, side, seed=4), mix) + 1.0


def activations_of(layer: nn.Module, x: torch.Tensor) -> Activations:
    with torch.no_grad():
        return Activations(x, layer(x))


def squared_error(layer: nn.Module, chain: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        y, z = layer(x), chain(x)
        channels = y.movedim(1, -1) if y.ndim == 4 else y
        return float((y - z).square().sum()) / (channels.numel() / channels.shape[-1])


def test_the_error_of_a_layer_is_the_tail_of_the_eigenvalues_of_wcw() -> None:
    layer, x = nn.Linear(10, 7), draw(500, 10, seed=1) @ draw(10, 10, seed=2)
    w, c = layer.weight.detach().double(), torch.cov(x.T.double(), correction=0)
    values = torch.linalg.eigvalsh(w @ c @ w.T).flip(0)
    for rank in (1, 3, 6):
        chain, error = fit_chain(layer, LayerFactors(layer="x", kind="linear", rank=rank), activations_of(layer, x))
        assert error == pytest.approx(float(values[rank:].sum()), rel=1e-3)
        assert squared_error(layer, chain, x) == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": "same"}, {"padding": "valid"}],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_full_ranks_change_nothing(kind: str, options: dict[str, object]) -> None:
    layer, x = nn.Conv2d(6, 8, 3, **options), correlated(24, 6, 12)
    rank = {"channel": 8, "spatial": 18, "tucker": 8}[kind]
    factors = LayerFactors(layer="x", kind=kind, rank=rank, inner=6 if kind == "tucker" else None)
    chain, error = fit_chain(layer, factors, activations_of(layer, x))
    scale = float(layer(x).detach().var())
    assert squared_error(layer, chain, x) <= 2e-3 * scale  # summed over 8 channels: float32 rounding of the tail
    assert error <= 2e-3 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_error_is_the_error_on_the_data(kind: str) -> None:
    layer, x = nn.Conv2d(6, 8, 3, padding=1), correlated(24, 6, 12)
    factors = LayerFactors(layer="x", kind=kind, rank=4, inner=4 if kind == "tucker" else None)
    chain, error = fit_chain(layer, factors, activations_of(layer, x))
    assert squared_error(layer, chain, x) == pytest.approx(error, rel=2e-2)


@pytest.mark.parametrize("rank", [1, 2, 4, 6])
def test_knowing_the_data_beats_the_truncated_weight_at_every_rank(rank: int) -> None:
    layer, x = nn.Conv2d(6, 8, 3, padding=1), correlated(24, 6, 12)
    factors = LayerFactors(layer="x", kind="channel", rank=rank)
    plain = truncate_weights(layer, factors)
    u, s, v = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
    product = plain[1].weight.flatten(1) @ plain[0].weight.flatten(1)
    assert torch.allclose(product, (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-5)
    chain, _ = fit_chain(layer, factors, activations_of(layer, x))
    assert squared_error(layer, chain, x) < squared_error(layer, plain, x)


def test_errors_count_by_the_metric() -> None:
    layer, x = nn.Conv2d(6, 8, 3, padding=1), correlated(24, 6, 12)
    root = torch.diag(torch.logspace(-1, 1, 8)) @ torch.linalg.qr(draw(8, 8, seed=7)).Q
    metric = (root.T @ root).double()
    damped = metric + DAMPING * metric.diagonal().mean() * torch.eye(8)

    def weighed(chain: nn.Module) -> float:
        with torch.no_grad():
            gap = (layer(x) - chain(x)).movedim(1, -1).reshape(-1, 8).double()
        return float(((gap @ damped) * gap).sum() / len(gap))

    for kind in KINDS:
        factors = LayerFactors(layer="x", kind=kind, rank=4, inner=5 if kind == "tucker" else None)
        plain, _ = fit_chain(layer, factors, activations_of(layer, x))
        chain, error = fit_chain(layer, factors, activations_of(layer, x), metric)
        assert weighed(chain) < 0.7 * weighed(plain)
        assert error == pytest.approx(weighed(chain), rel=2e-2)


def test_few_samples_do_not_draw_a_layer_far_from_what_it_was() -> None:
    layer, x, fresh = nn.Linear(64, 24), draw(60, 64, seed=1), draw(500, 64, seed=2)
    with torch.no_grad():
        targets = layer(x)
        disturbed = Activations(x + 0.1 * draw(60, 64, seed=3), targets)
        chain, _ = fit_chain(layer, LayerFactors(layer="x", kind="linear", rank=20), disturbed)
        assert float((chain(fresh) - layer(fresh)).square().mean()) < 0.3 * float(layer(fresh).var())


def test_the_product_of_a_chain_as_one_weight() -> None:
    layer, x = nn.Conv2d(5, 7, 3, padding=1), correlated(4, 5, 9)
    for kind in KINDS:
        factors = LayerFactors(layer="x", kind=kind, rank=3, inner=2 if kind == "tucker" else None)
        chain = fit_chain(layer, factors, activations_of(layer, x))[0]
        composed = nn.Conv2d(5, 7, 3, padding=1)
        with torch.no_grad():
            composed.weight.copy_(compose(chain, kind).reshape(composed.weight.shape))
            composed.bias.copy_(chain[-1].bias)
            assert torch.allclose(composed(x), chain(x), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_balanced_factors_do_the_same_with_equal_norms(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 3, padding=1)
    factors = LayerFactors(layer="c", kind=kind, rank=4, inner=3 if kind == "tucker" else None)
    chain, x = chain_for(layer, factors), draw(2, 6, 5, 5)
    with torch.no_grad():
        chain[0].weight.mul_(1e-4)
        chain[-1].weight.mul_(1e4)
        expected = chain(x)
        balance(chain)
        torch.testing.assert_close(chain(x), expected, rtol=1e-4, atol=1e-4)
    made, read = chain[-2].weight.flatten(1), chain[-1].weight.transpose(0, 1).flatten(1)  # balanced last
    torch.testing.assert_close(made.norm(dim=1), read.norm(dim=1))


def test_a_layer_is_fitted_to_the_inputs_it_really_gets() -> None:
    layer, x = nn.Linear(8, 6), draw(400, 8)
    disturbed = x * 0.8
    with torch.no_grad():
        targets = layer(x)
    chain, _ = fit_chain(layer, LayerFactors(layer="x", kind="linear", rank=6), Activations(disturbed, targets))
    with torch.no_grad():
        assert torch.allclose(chain(disturbed), targets, atol=1e-3)


def test_errors_fall_with_the_rank() -> None:
    layer, x = nn.Conv2d(6, 8, 3, padding=1), correlated(8, 6, 10)
    errors = rank_curve(layer, activations_of(layer, x)).errors
    assert bool((errors.diff() <= 1e-9).all()) and len(errors) == 9


def candidate(flops: int, divergence: float) -> Candidate:
    latency = Latency(1.0, 1.0, 1.0, 1.0)
    site = Site("layer", (4,), (4,), flops=flops, metric=torch.eye(4))
    return Candidate(site, None, flops, 2 * divergence, latency, latency)


def test_allocation_finds_the_best_of_all_combinations() -> None:
    import itertools
    import random

    draw_ = random.Random(0)
    for _ in range(30):
        layers = [[candidate(draw_.randint(1, 30), draw_.random()) for _ in range(4)] for _ in range(4)]
        budget = draw_.randint(4, 120)
        feasible = [c for c in itertools.product(*layers) if sum(x.flops for x in c) <= budget]
        found = allocate(layers, budget=budget)
        if not feasible:
            assert found is None
            continue
        assert found is not None and sum(c.flops for c in found) <= budget
        assert sum(c.divergence for c in found) == pytest.approx(min(sum(x.divergence for x in c) for c in feasible))


def test_latencies_are_measured_in_turn() -> None:
    calls: list[int] = []

    class Noted(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(self.number)
            return x

    found = measure_latencies([Noted(0), Noted(1)], torch.zeros(1), repeats=4)
    assert calls == [0, 1] * 5 and all(latency.fastest <= latency.median for latency in found)


@pytest.fixture(scope="module")
def images() -> ImageDataset:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 4
    pixels = torch.randint(0, 120, (160, 3, 8, 8), generator=g)
    pixels[torch.arange(160), labels % 3] += 90  # the class shows in a channel, more or less
    return ImageDataset(pixels.to(torch.uint8), labels, ("a", "b", "c", "d"), split="train")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.second(self.first(x).relu())).relu().mean((2, 3)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def test_sites_are_the_layers_in_running_order_with_their_flops(model: nn.Module, images: ImageDataset) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sites = find_sites(model, images)
    assert [site.name for site in sites] == ["first", "second", "head"]
    assert sites[1].flops == 2 * 64 * 16 * 12 * 9 and sites[1].inputs == (12, 8, 8)
    assert sites[2].flops == 2 * 16 * 4 + 4
    assert all(bool((torch.linalg.eigvalsh(site.metric) > -1e-9).all()) for site in sites)
    assert [len(site.metric) for site in sites] == [12, 16, 4]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_that_runs_twice_or_shares_its_weight_is_left_alone(images: ImageDataset) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Conv2d(3, 3, 3, padding=1)
            self.one = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(self.again(self.again(x)).mean((2, 3)))

    assert [site.name for site in find_sites(Twice(), images)] == ["one"]


def test_full_rank_compression_keeps_the_function_and_the_model(model: nn.Module, images: ImageDataset) -> None:
    sites = find_sites(model, images)
    fitted = compress_network(model, uniform(model, sites, share=1.0), images)
    x = images.images[:8].float() / 255
    with torch.no_grad():
        assert torch.allclose(fitted.model(x), model(x), atol=2e-2)
    assert isinstance(model.second, nn.Conv2d) and isinstance(fitted.model.second, nn.Sequential)


def test_only_layers_that_got_faster_may_be_chosen_and_the_budget_binds(model: nn.Module, images: ImageDataset) -> None:
    site = find_sites(model, images)[1]
    time = Latency(1.0, 1.0, 1.0, 1.0)
    original = Candidate(site, None, site.flops, 0.0, time, time)
    with pytest.raises(OptionError, match=r"target: expected at least 1\.00x.*got 0\.5x"):
        choose([LayerCandidates(site, (original,), 5, 1.0)], total_flops=site.flops, share=0.5)
    half = Candidate(site, LayerFactors(layer="second", kind="channel", rank=4), site.flops // 2, 0.1, time, time)
    assert choose([LayerCandidates(site, (original, half), 0, 1.0)], total_flops=site.flops, share=0.5) == (half,)
    assert choose([LayerCandidates(site, (original, half), 0, 1.0)], total_flops=site.flops, share=1.0) == (original,)


def test_chain_flops_count_two_for_a_multiply_add() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.Conv2d(5, 7, 1))
    assert chain_flops(chain, (3, 6, 6)) == 36 * (2 * 5 * 27 + 2 * 35 + 7)


def test_the_whole_job(images: ImageDataset, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    # tiny layers never get faster: time is made to follow the work, so that the rest of the job has something to do
    from assay.compression import network as candidates

    def by_parameters(modules: list[nn.Module], inputs: torch.Tensor) -> tuple[Latency, ...]:
        sizes = [float(sum(p.numel() for p in m.parameters())) for m in modules]
        return tuple(Latency(size, size, size, size) for size in sizes)

    monkeypatch.setattr(candidates, "measure_latencies", by_parameters)
    plan = CompressionPlan(share=0.6, calibration=64, validation=40, batch=4, robust_images=8, curve=(0.5,))
    done = compress(model, images, images, plan, name="small")
    report = done.report
    assert report.after.flops <= 0.6 * report.before.flops
    assert report.after.parameters == sum(p.numel() for p in done.model.parameters())
    assert {factors.layer for factors in done.factorization} == {
        layer.name for layer in report.layers if layer.kind != "kept"
    }
    assert report.after.robust is not None and report.after.robust.n == 8
    assert {point.method for point in report.curve} == {"data-aware", "weight SVD"}
    gentle = compress(
        model,
        images,
        images,
        CompressionPlan(max_drop=99.0, calibration=64, validation=40, attack=None, curve=()),
        name="small",
    )
    assert gentle.report.after.flops < report.after.flops


@pytest.mark.parametrize(
    "change", [{}, {"share": 0.5, "max_drop": 1.0}, {"share": 1.5}, {"share": 0.0}, {"max_drop": -1.0}], ids=str
)
def test_wrong_targets_are_named(change: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=r"target|max_drop"):
        CompressionPlan(**change)


def test_a_network_without_layers_to_factorise_is_refused(images: ImageDataset) -> None:
    class Bare(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)).repeat(1, 2)[:, :4].requires_grad_()

    with pytest.raises(ModelError, match="got none"):
        compress(Bare(), images, images, CompressionPlan(share=0.5, validation=40, calibration=40))


def test_a_compressed_network_loads_wherever_a_model_loads(tmp_path: Path) -> None:
    original = load_model("resnet20", classes=10, image_shape=(3, 8, 8))
    factors = (
        LayerFactors(layer="layer1.0.conv1", kind="spatial", rank=8),
        LayerFactors(layer="layer2.0.conv2", kind="tucker", rank=16, inner=12),
        LayerFactors(layer="linear", kind="linear", rank=4),
    )
    names = {name for name, _ in original.named_modules()}
    if "layer1.0.conv1" not in names:
        pytest.fail(f"layers are called otherwise now: {sorted(names)[:9]}")
    install(original, factors)
    classes = tuple(str(i) for i in range(10))
    save_compressed(tmp_path, original, factors, spec="resnet20", classes=classes, image_shape=(3, 8, 8))
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        expected = original(x)
        assert torch.equal(load_model(str(tmp_path))(x), expected)
        by_weights = load_model("resnet20", weights=tmp_path / "model.safetensors", image_shape=(3, 8, 8))
        assert torch.equal(by_weights(x), expected)
    assert read_structure(tmp_path) == factors
    with pytest.raises(ModelError, match="nowhere: expected a layer of the model"):
        install(load_model("resnet20"), (LayerFactors(layer="nowhere", kind="linear", rank=1),))


def test_inside_running_statistics_training_mode_answers_as_evaluation_mode_does_and_learns_none() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    images = torch.rand(5, 3, 8, 8)
    expected = model.eval()(images)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    with with_running_statistics(model):
        assert torch.equal(model(images), expected)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("vertical", [False, True])
def test_fewer_inputs_than_directions_are_no_obstacle(vertical: bool) -> None:
    """The covariance of such inputs has eigenvalues at zero, which rounding in float32 makes negative."""
    layer = nn.Conv2d(64, 8, 3, bias=False)
    first = nn.Conv2d(64, 4, (3, 1) if vertical else 1, bias=False)
    x = 1e3 * torch.rand(1, 64, 3, 5, generator=torch.Generator().manual_seed(0)) ** 8
    with torch.no_grad():
        _set_projection(first, layer, x, None, vertical=vertical)
    assert bool(first.weight.isfinite().all())
