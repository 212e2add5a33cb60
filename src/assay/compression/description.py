"""What became of each layer, as a record."""

from __future__ import annotations

import math

import torch
from torch import nn

from assay.compression.network import Candidate, Fitted, Weighed
from assay.lowrank.layers import compose
from assay.records.compression import LayerCompression


def describe_layer(
    model: nn.Module, smaller: nn.Module, weighed: Weighed, chosen: Candidate, fitted: Fitted
) -> LayerCompression:
    """What became of one layer, with its spectrum and its condition before and after."""
    name, factors = weighed.site.name, chosen.factors
    layer, chain = model.get_submodule(name), smaller.get_submodule(name)
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    spectrum = torch.linalg.svdvals(weight.detach().double().flatten(1))
    condition = after = _condition(spectrum)
    reason = ""
    if factors is None:
        kept = len(weighed.candidates) > 1
        reason = "the budget needs no more" if kept else f"none of {weighed.slower} cheaper forms was faster"
    else:
        assert isinstance(chain, nn.Sequential)
        after = _condition(torch.linalg.svdvals(compose(chain, factors.kind)))
    return LayerCompression(
        name=name,
        kind="kept" if factors is None else factors.kind,
        rank=len(spectrum) if factors is None else factors.rank,
        inner=None if factors is None else factors.inner,
        full_rank=len(spectrum),
        flops_before=weighed.site.flops,
        flops_after=chosen.flops,
        parameters_before=sum(p.numel() for p in layer.parameters()),
        parameters_after=sum(p.numel() for p in chain.parameters()),
        latency_before=chosen.original_latency.fastest,
        latency_after=chosen.latency.fastest,
        condition_before=condition,
        condition_after=after,
        relative_error=fitted.errors.get(name, 0.0) / weighed.variance if weighed.variance else 0.0,
        spectrum=tuple(spectrum.tolist()),
        reason=reason,
    )


def _condition(sigma: torch.Tensor) -> float:
    """σ₁ over the smallest singular value that is not rounding: factors have products of less than full rank."""
    held = sigma[sigma > 1e-6 * sigma[0]]
    return float(sigma[0] / held[-1]) if len(held) else math.inf
