"""A whole network: choose factors for its layers within a budget, and fit them one after another."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.compress.candidates import WEIGHED, Candidate, Timings, Weighed, weigh
from assay.compress.traffic import Site, capture
from assay.data.dataset import ImageDataset
from assay.errors import ModelError, OptionError
from assay.lowrank.allocate import Choice, allocate
from assay.lowrank.layers import Traffic, fit_chain, truncate_weights
from assay.models.factorized import Kind, LayerFactors, find_layer

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
