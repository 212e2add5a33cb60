"""The ways to run one layer in factors, and what each costs, harms and gains, measured."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.compress.traffic import Site, chain_flops
from assay.lowrank.latency import Latency, measure_latencies
from assay.lowrank.layers import Traffic, fit_chain, rank_curve
from assay.models.factorized import Kind, LayerFactors, chain_for
from assay.runtime import generator

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
