"""A network's layers in factors: candidates with their error and latency, the choice in a budget, and the fit."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from assay.compression.calibration import Site, capture, chain_flops
from assay.data.dataset import ImageDataset
from assay.errors import OptionError
from assay.lowrank.layers import Activations, compose, fit_chain, rank_curve, truncate_weights
from assay.models.calls import copied
from assay.models.factorized import Kind, LayerFactors, chain_for, find_layer
from assay.records.compression import LayerCompression
from assay.runtime import generator
from assay.runtime.latency import Latency, measure_latencies

SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
CANDIDATE_IMAGES = 48  # images on which candidates are compared; the chosen ones are fitted on all
Timings = dict[tuple[str, tuple[int, ...]], tuple[Latency, ...]]
MOST_TIME = 0.95  # a replacement must take at most this share of the time of what it replaces


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
    def divergence(self) -> float:
        """The expected divergence of the network's output, to second order."""
        return 0.5 * self.error


@dataclass(frozen=True)
class LayerCandidates:
    """All candidates of one layer that are faster than it, the layer itself first, and how many were slower."""

    site: Site
    candidates: tuple[Candidate, ...]
    slower: int
    variance: float


def evaluate_candidates(
    layer: nn.Module, site: Site, activations: Activations, *, kinds: Sequence[Kind], batch: int, timings: Timings
) -> LayerCandidates:
    """Fit every kind and rank of ``layer`` to ``activations``, and time each against the layer on inputs of its shape.

    ``timings`` caches latencies by geometry, which decides them.
    """
    described = list(describe(layer, site, kinds=kinds))
    chains = [chain_for(layer, factors) for factors in described]
    costs = [site.rows * chain_flops(chain, site.inputs) for chain in chains]
    cheaper = [place for place, cost in enumerate(costs) if cost < 0.97 * site.flops]
    geometry = (repr(layer), (site.rows, *site.inputs))
    if geometry not in timings:
        inputs = _example(layer, site, batch)
        timings[geometry] = measure_latencies([_ready(layer), *(_ready(chains[place]) for place in cheaper)], inputs)
    original, *latencies = timings[geometry]
    layer = _in_float32(layer)
    curve = rank_curve(layer, activations, site.metric)
    faster = [Candidate(site, None, site.flops, 0.0, original, original)]
    slower = 0
    for place, latency in zip(cheaper, latencies, strict=True):
        if latency.fastest > MOST_TIME * original.fastest:
            slower += 1
            continue
        factors = described[place]
        if factors.kind in {"linear", "channel"}:
            error = float(curve.errors[min(factors.rank, len(curve.errors) - 1)])
        else:
            error = fit_chain(layer, factors, activations, site.metric)[1]
        faster.append(Candidate(site, factors, costs[place], error, latency, original))
    return LayerCandidates(site, tuple(faster), slower, curve.total)


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
    x = torch.randn(batch * site.rows, *site.inputs, generator=generator(0x70)).to(weight)
    return x.contiguous(memory_format=torch.channels_last) if isinstance(layer, nn.Conv2d) else x


def _ready(layer: nn.Module) -> nn.Module:
    return copy.deepcopy(layer).eval().to(memory_format=torch.channels_last)


def _in_float32(layer: nn.Module) -> nn.Module:
    """The layer as activations are captured: chains are fitted on the CPU, in float32, and get its dtype afterwards."""
    return copy.deepcopy(layer).to("cpu", torch.float32)


def allocate(choices: Sequence[Sequence[Candidate]], *, budget: int, steps: int = 4000) -> tuple[Candidate, ...] | None:
    """One candidate for each layer, with Σ FLOPs ≤ ``budget`` and the least Σ divergence; None where none fits.

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
        totals = np.full(width, np.inf)
        chosen = np.full(width, -1)
        for place, option in enumerate(options):
            units = math.ceil(option.flops / unit - 1e-9)
            if units >= width:
                continue
            candidate = np.full(width, np.inf)
            candidate[units:] = best[: width - units] + option.divergence
            better = candidate < totals
            totals[better], chosen[better] = candidate[better], place
        best = totals
        taken.append(chosen)
    if not np.isfinite(best[-1]):
        # costs were rounded up: the cheapest of all may fit all the same
        cheapest = tuple(min(options, key=lambda option: option.flops) for options in choices)
        return cheapest if sum(option.flops for option in cheapest) <= budget else None
    left = int(np.argmin(best))
    picked: list[Candidate] = []
    for options, chosen in zip(reversed(choices), reversed(taken), strict=True):
        option = options[int(chosen[left])]
        picked.append(option)
        left -= math.ceil(option.flops / unit - 1e-9)
    return tuple(reversed(picked))


KINDS: tuple[Kind, ...] = ("linear", "channel", "spatial", "tucker")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A compressed copy, its structure, and E‖y − y′‖² of each replaced layer on the inputs it gets there."""

    model: nn.Module
    factorization: tuple[LayerFactors, ...]
    errors: dict[str, float]


def evaluate_network(
    model: nn.Module, sites: Sequence[Site], calibration: ImageDataset, *, kinds: Sequence[Kind], batch: int
) -> tuple[LayerCandidates, ...]:
    """The candidates of every site, on the activations of the original network."""
    evaluated = []
    timings: Timings = {}
    few = calibration.subset(torch.arange(min(CANDIDATE_IMAGES, len(calibration))))
    for site in sites:
        layer, activations = model.get_submodule(site.name), Activations(*capture(model, [site.name], few)[site.name])
        evaluated.append(evaluate_candidates(layer, site, activations, kinds=kinds, batch=batch, timings=timings))
    return tuple(evaluated)


def choose(candidates: Sequence[LayerCandidates], *, total_flops: int, share: float) -> tuple[Candidate, ...]:
    """The candidates of least divergence that bring the network to ``share`` of its FLOPs.

    Raises :class:`OptionError` when no choice of layers that get faster goes that far, saying how far one can go.
    """
    fixed = total_flops - sum(layer.site.flops for layer in candidates)
    budget = max(0, int(share * total_flops) - fixed)
    chosen = allocate([layer.candidates for layer in candidates], budget=budget)
    if chosen is None:
        least = fixed + sum(min(c.flops for c in layer.candidates) for layer in candidates)
        expected = f"at least {least / total_flops:.2f}x: only layers whose measured latency falls are replaced"
        raise OptionError("target", expected=expected, got=f"{share:g}x")
    return chosen


def compress_network(
    model: nn.Module,
    chosen: Sequence[LayerFactors],
    calibration: ImageDataset,
    *,
    sites: Sequence[Site] = (),
    use_data: bool = True,
) -> Fitted:
    """Replace the chosen layers of a copy, in the order they run, each fitted to the outputs of the original network.

    The inputs of a layer are those it gets from the layers replaced before it, so that its fit compensates for their
    errors (Zhang et al. 2015, section 3.3, without the non-linearity); errors count by the metrics of the ``sites``.
    ``use_data=False`` truncates the weights alone.
    """
    metrics = {site.name: site.metric for site in sites}
    smaller = copied(model)
    errors: dict[str, float] = {}
    for factors in chosen:
        parent, name = find_layer(smaller, factors.layer)
        layer = getattr(parent, name)
        if not use_data:
            setattr(parent, name, truncate_weights(_in_float32(layer), factors).to(layer.weight))
            continue
        _, targets = capture(model, [factors.layer], calibration)[factors.layer]
        inputs, _ = capture(smaller, [factors.layer], calibration)[factors.layer]
        chain, errors[factors.layer] = fit_chain(
            _in_float32(layer), factors, Activations(inputs, targets), metrics.get(factors.layer)
        )
        setattr(parent, name, chain.to(layer.weight))
    for chain_name in (factors.layer for factors in chosen):
        smaller.get_submodule(chain_name).train(model.get_submodule(chain_name).training)
    return Fitted(smaller, tuple(chosen), errors)


def uniform(model: nn.Module, sites: Sequence[Site], *, share: float) -> tuple[LayerFactors, ...]:
    """The same share of the full rank for every layer, as (out, in·k²) matrices: a point of a rank sweep."""
    factors = []
    for site in sites:
        layer = model.get_submodule(site.name)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        full = min(weight.shape[0], weight[0].numel())
        kind: Kind = "linear" if isinstance(layer, nn.Linear) else "channel"
        factors.append(LayerFactors(layer=site.name, kind=kind, rank=max(1, round(share * full))))
    return tuple(factors)


def factors_of(chosen: Sequence[Candidate]) -> tuple[LayerFactors, ...]:
    return tuple(candidate.factors for candidate in chosen if candidate.factors is not None)


def describe_layer(
    model: nn.Module, smaller: nn.Module, fitted: Fitted, candidates: LayerCandidates, chosen: Candidate
) -> LayerCompression:
    """How one layer was replaced, with its spectrum and its condition before and after."""
    name, factors = candidates.site.name, chosen.factors
    layer, chain = model.get_submodule(name), smaller.get_submodule(name)
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    spectrum = torch.linalg.svdvals(weight.detach().double().flatten(1))
    condition = after = _condition(spectrum)
    reason = ""
    if factors is None:
        has_faster = len(candidates.candidates) > 1
        reason = "the budget needs no more" if has_faster else f"none of {candidates.slower} cheaper forms was faster"
    else:
        assert isinstance(chain, nn.Sequential)
        after = _condition(torch.linalg.svdvals(compose(chain, factors.kind)))
    return LayerCompression(
        name=name,
        kind="kept" if factors is None else factors.kind,
        rank=len(spectrum) if factors is None else factors.rank,
        inner=None if factors is None else factors.inner,
        full_rank=len(spectrum),
        flops_before=candidates.site.flops,
        flops_after=chosen.flops,
        parameters_before=sum(p.numel() for p in layer.parameters()),
        parameters_after=sum(p.numel() for p in chain.parameters()),
        latency_before=chosen.original_latency.fastest,
        latency_after=chosen.latency.fastest,
        condition_before=condition,
        condition_after=after,
        relative_error=fitted.errors.get(name, 0.0) / candidates.variance if candidates.variance else 0.0,
        spectrum=tuple(spectrum.tolist()),
        reason=reason,
    )


def _condition(sigma: torch.Tensor) -> float:
    """σ₁ over the smallest singular value that is not rounding: factors have products of less than full rank."""
    nonzero = sigma[sigma > 1e-6 * sigma[0]]
    return float(sigma[0] / nonzero[-1]) if len(nonzero) else math.inf
