"""A whole network: choose factors for its layers within a budget, and fit them one after another."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from assay.compression.calibration import Site, capture, chain_flops
from assay.data.dataset import ImageDataset
from assay.errors import ModelError, OptionError
from assay.lowrank.layers import Traffic, fit_chain, rank_curve, truncate_weights
from assay.models.factorized import Kind, LayerFactors, chain_for, find_layer
from assay.runtime import generator


@dataclass(frozen=True)
class Latency:
    """Fastest, median and quartiles, in seconds, of one forward pass.

    The fastest says what the work takes; the rest says what else the machine was doing.
    """

    fastest: float
    median: float
    low: float
    high: float


def measure_latencies(
    modules: Sequence[nn.Module], inputs: Tensor, *, repeats: int = 15, budget: float = 2.0
) -> tuple[Latency, ...]:
    """One forward pass of each module on the same ``inputs``, in turn, ``repeats`` times or until ``budget`` seconds.

    The first round warms up and does not count. Modules are used as they are: put them into evaluation mode first.
    """
    device = inputs.device
    times: list[list[float]] = [[] for _ in modules]
    end = time.perf_counter() + budget
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for module, found in zip(modules, times, strict=True):
                started = time.perf_counter()
                module(inputs)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:
                    found.append(time.perf_counter() - started)
            if turn >= 3 and time.perf_counter() > end:
                break
    return tuple(_summary(sorted(found)) for found in times)


def _summary(found: list[float]) -> Latency:
    n = len(found)
    return Latency(found[0], found[n // 2], found[n // 4], found[(3 * n) // 4])


SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
WEIGHED = 48  # images on which candidates are compared; the chosen ones are fitted on all
Timings = dict[tuple[str, tuple[int, ...]], tuple[Latency, ...]]
GAIN = 0.95  # a replacement must take at most this share of the time of what it replaces


@dataclass(frozen=True)
class Candidate:
    """One chain for one layer; ``factors`` is None for the layer as it is.

    ``error`` is that of its output in the site's metric. Latencies in seconds for one batch.
    """

    site: Site
    factors: LayerFactors | None
    flops: int
    error: float
    latency: Latency
    original_latency: Latency

    @property
    def harm(self) -> float:
        """The expected divergence of the network's output, to second order."""
        return 0.5 * self.error


@dataclass(frozen=True)
class Weighed:
    """All candidates of one layer that are faster than it, the layer itself first, and how many were slower."""

    site: Site
    candidates: tuple[Candidate, ...]
    slower: int
    variance: float


def weigh(
    layer: nn.Module, site: Site, traffic: Traffic, *, kinds: Sequence[Kind], batch: int, timings: Timings
) -> Weighed:
    """Fit every kind and rank of ``layer`` to ``traffic``, and time each against the layer on inputs of its shape.

    ``timings`` remembers what was timed: layers of one geometry take the same time.
    """
    described = list(describe(layer, site, kinds=kinds))
    chains = [chain_for(layer, factors) for factors in described]
    costs = [chain_flops(chain, site.inputs) for chain in chains]
    cheaper = [place for place, cost in enumerate(costs) if cost < 0.97 * site.flops]
    geometry = (repr(layer), site.inputs)
    if geometry not in timings:
        inputs = _example(layer, site, batch)
        timings[geometry] = measure_latencies([_fast(layer), *(_fast(chains[place]) for place in cheaper)], inputs)
    timed = timings[geometry]
    original = timed[0]
    traffic = Traffic(traffic.x[:WEIGHED], traffic.y[:WEIGHED])
    curve = rank_curve(layer, traffic, site.metric)
    kept = [Candidate(site, None, site.flops, 0.0, original, original)]
    slower = 0
    for place, latency in zip(cheaper, timed[1:], strict=True):
        if latency.fastest > GAIN * original.fastest:
            slower += 1
            continue
        factors = described[place]
        if factors.kind in {"linear", "channel"}:
            error = float(curve.errors[min(factors.rank, len(curve.errors) - 1)])
        else:
            error = fit_chain(layer, factors, traffic, site.metric)[1]
        kept.append(Candidate(site, factors, costs[place], error, latency, original))
    return Weighed(site, tuple(kept), slower, curve.total)


def describe(layer: nn.Module, site: Site, *, kinds: Sequence[Kind]) -> Iterator[LayerFactors]:
    """Every kind that fits the layer, at ranks that are shares of the full one, in steps of 4 where it is large."""
    for kind in kinds:
        if isinstance(layer, nn.Linear):
            if kind == "linear":
                for rank in _ranks(min(layer.weight.shape)):
                    yield LayerFactors(layer=site.name, kind="linear", rank=rank)
            continue
        assert isinstance(layer, nn.Conv2d)
        into, out, (high, wide) = layer.in_channels, layer.out_channels, layer.kernel_size
        if kind == "channel":
            for rank in _ranks(min(out, into * high * wide)):
                yield LayerFactors(layer=site.name, kind="channel", rank=rank)
        elif kind == "spatial" and high > 1 and wide > 1:
            for rank in _ranks(min(into * high, out * wide) // min(high, wide)):
                yield LayerFactors(layer=site.name, kind="spatial", rank=rank)
        elif kind == "tucker" and high * wide > 1:
            for share in SHARES:
                inner, rank = _round(share * into), _round(share * out)
                yield LayerFactors(layer=site.name, kind="tucker", rank=rank, inner=inner)


def _ranks(full: int) -> list[int]:
    return sorted({min(full, _round(share * full)) for share in SHARES})


def _round(rank: float) -> int:
    return max(1, round(rank)) if rank < 6 else 4 * round(rank / 4)


def _example(layer: nn.Module, site: Site, batch: int) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    x = torch.randn(batch, *site.inputs, generator=generator(0x70)).to(weight)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _fast(layer: nn.Module) -> nn.Module:
    """A copy in the layout that evaluation uses."""
    return copy.deepcopy(layer).eval().to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Choice:
    """One way to run one layer: its cost in FLOPs and the harm it is expected to do."""

    label: object
    cost: int
    harm: float


def allocate(choices: Sequence[Sequence[Choice]], *, budget: int, steps: int = 4000) -> tuple[Choice, ...] | None:
    """One choice for each layer, with Σ cost ≤ ``budget`` and the least Σ harm; None when the budget cannot be met.

    Dynamic programming over the budget in ``steps`` equal parts, costs rounded up, so the budget is never exceeded.
    """
    if budget < 0:
        return None
    parts = max(1, min(budget, steps))
    unit = max(budget, 1) / parts  # a choice that costs the whole budget is exactly all the parts
    width = parts + 1
    best = np.zeros(width)
    taken: list[np.ndarray] = []
    for options in choices:
        reached = np.full(width, np.inf)
        chosen = np.full(width, -1)
        for place, option in enumerate(options):
            units = _parts(option.cost, unit)
            if units >= width:
                continue
            candidate = np.full(width, np.inf)
            candidate[units:] = best[: width - units] + option.harm
            better = candidate < reached
            reached[better], chosen[better] = candidate[better], place
        best = reached
        taken.append(chosen)
    if not np.isfinite(best[-1]):
        # costs were rounded up: the cheapest of all may fit all the same
        cheapest = tuple(min(options, key=lambda option: option.cost) for options in choices)
        return cheapest if sum(option.cost for option in cheapest) <= budget else None
    left = int(np.argmin(best))
    found: list[Choice] = []
    for options, chosen in zip(reversed(choices), reversed(taken), strict=True):
        option = options[int(chosen[left])]
        found.append(option)
        left -= _parts(option.cost, unit)
    return tuple(reversed(found))


def _parts(cost: int, unit: float) -> int:
    return math.ceil(cost / unit - 1e-9)


KINDS: tuple[Kind, ...] = ("linear", "channel", "spatial", "tucker")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A compressed copy, its structure, and E‖y − y′‖² of each replaced layer on the inputs it gets there."""

    model: nn.Module
    factorization: tuple[LayerFactors, ...]
    errors: dict[str, float]


def weigh_network(
    model: nn.Module, sites: Sequence[Site], calibration: ImageDataset, *, kinds: Sequence[Kind], batch: int
) -> tuple[Weighed, ...]:
    """The candidates of every site, on the traffic of the untouched network."""
    found = []
    timings: Timings = {}
    few = calibration.subset(torch.arange(min(WEIGHED, len(calibration))))
    for site in sites:
        x, y = capture(model, [site.name], few)[site.name]
        found.append(
            weigh(model.get_submodule(site.name), site, Traffic(x, y), kinds=kinds, batch=batch, timings=timings)
        )
    return tuple(found)


def choose(weighed: Sequence[Weighed], *, total_flops: int, share: float) -> tuple[Candidate, ...]:
    """The candidates of least harm that bring the network to ``share`` of its FLOPs.

    Raises :class:`OptionError` when no choice of layers that get faster goes that far, saying how far one can go.
    """
    fixed = total_flops - sum(layer.site.flops for layer in weighed)
    choices = [[Choice(c, c.flops, c.harm) for c in layer.candidates] for layer in weighed]
    picked = allocate(choices, budget=max(0, int(share * total_flops) - fixed))
    if picked is None:
        least = fixed + sum(min(c.flops for c in layer.candidates) for layer in weighed)
        expected = f"at least {least / total_flops:.2f}x: only layers whose measured latency falls are replaced"
        raise OptionError("target", expected=expected, got=f"{share:g}x")
    return tuple(choice.label for choice in picked if isinstance(choice.label, Candidate))


def compress_network(
    model: nn.Module,
    chosen: Sequence[LayerFactors],
    calibration: ImageDataset,
    *,
    sites: Sequence[Site] = (),
    use_data: bool = True,
) -> Fitted:
    """Replace the chosen layers of a copy, in the order they run, each fitted to the outputs of the original network.

    The inputs of a layer are those it gets from the layers replaced before it, so it makes good what it can of their
    errors (Zhang et al. 2015, section 3.3, without the non-linearity); errors count by the metrics of the ``sites``.
    ``use_data=False`` truncates the weights alone.
    """
    metrics = {site.name: site.metric for site in sites}
    copied = copy.deepcopy(model)
    errors: dict[str, float] = {}
    for factors in chosen:
        parent, name = find_layer(copied, factors.layer)
        layer = getattr(parent, name)
        if not use_data:
            setattr(parent, name, truncate_weights(layer, factors))
            continue
        _, wanted = capture(model, [factors.layer], calibration)[factors.layer]
        reached, _ = capture(copied, [factors.layer], calibration)[factors.layer]
        chain, errors[factors.layer] = fit_chain(layer, factors, Traffic(reached, wanted), metrics.get(factors.layer))
        setattr(parent, name, chain)
    for chain_name in (factors.layer for factors in chosen):
        copied.get_submodule(chain_name).train(model.get_submodule(chain_name).training)
    return Fitted(copied, tuple(chosen), errors)


def uniform(model: nn.Module, sites: Sequence[Site], *, share: float) -> tuple[LayerFactors, ...]:
    """The same share of the full rank for every layer, as (out, in·k²) matrices: what a rank sweep means."""
    found = []
    for site in sites:
        layer = model.get_submodule(site.name)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        full = min(weight.shape[0], weight[0].numel())
        kind: Kind = "linear" if isinstance(layer, nn.Linear) else "channel"
        found.append(LayerFactors(layer=site.name, kind=kind, rank=max(1, round(share * full))))
    return tuple(found)


def factors_of(chosen: Sequence[Candidate]) -> tuple[LayerFactors, ...]:
    """The structure: only the layers that change."""
    return tuple(candidate.factors for candidate in chosen if candidate.factors is not None)


def check_sites(sites: Sequence[Site], name: str) -> None:
    """Raise :class:`ModelError` for a network with nothing to factorise."""
    if not sites:
        raise ModelError(name, expected="linear or convolutional layers that can be factorised", got="none")
