"""Networks that have a name: of our architectures, or of a library after the library's name and a colon."""

from __future__ import annotations

from collections.abc import Mapping

from assay.models.architectures import ARCHITECTURES
from assay.models.sources.blueprint import Blueprint, ModelRequest, parse_options
from assay.models.sources.ours import plan_ours
from assay.models.sources.timm import plan_timm
from assay.models.sources.torchvision import plan_torchvision
from assay.models.sources.transformers import plan_transformers

PUBLISHED = frozenset({"weights", "pretrained"})  # options that fetch published weights
LIBRARIES = {"torchvision": plan_torchvision, "timm": plan_timm, "transformers": plan_transformers}


def parse_architecture(spec: str) -> tuple[str, dict[str, object]] | None:
    """Name and options where ``spec`` is one of these networks, else None; options that fetch weights are left out."""
    name, options = parse_options(spec)
    if name not in ARCHITECTURES and name.partition(":")[0] not in LIBRARIES:
        return None
    return name, {key: value for key, value in options.items() if key not in PUBLISHED}


def plan_named(spec: str, request: ModelRequest, options: Mapping[str, object] | None = None) -> Blueprint:
    """Any of these networks, with the options in ``spec`` and the further ``options``."""
    name, spelled = parse_options(spec)
    return LIBRARIES.get(name.partition(":")[0], plan_ours)(name, request, {**spelled, **(options or {})})
