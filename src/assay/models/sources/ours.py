"""Our own architectures by their names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from assay.models.architectures import build
from assay.models.sources.blueprint import DEFAULT_SHAPE, Blueprint, ModelRequest, Structure


def plan_ours(name: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """An architecture of ours, with random weights."""
    shape, normalization = request.image_shape or DEFAULT_SHAPE, request.normalization

    def make(classes: int) -> nn.Module:
        model = build(
            name, classes=classes, image_shape=shape, normalization=normalization, options=options, seed=request.seed
        )
        return model.eval()

    return Blueprint(make, shape, has_weights=False, structure=Structure(name, options))
