"""Run folders: the part of ``config.json`` that is needed to build the model again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from assay.errors import ModelError
from assay.models.architectures import ARCHITECTURES
from assay.models.sources.blueprint import Blueprint, ModelRequest, Structure
from assay.models.sources.named import PUBLISHED, parse_architecture, plan_named
from assay.options import Options, option_error
from assay.records.preparation import Preparation

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class ModelConfig(Options):
    """``name`` and ``options`` of the architecture, class names by label, image shape (C, H, W), normalisation.

    ``preparation`` is how the pictures of its data were resized and cropped, where they were.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    name: str
    classes: tuple[str, ...] = Field(min_length=2)
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preparation: Preparation | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _both_or_none(self) -> ModelConfig:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std together, or neither")
        return self

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def prepared(self, *, source: str) -> Preparation | None:
        """The preparation with the normalisation of the weights, which is the one that holds."""
        if self.preparation is None:
            return None
        numbers: dict[str, Any] = {}
        if self.mean is not None and self.std is not None:  # written down from float32
            mean, std = (tuple(float(f"{value:.7g}") for value in values) for values in (self.mean, self.std))
            numbers = {"mean": mean, "std": std, "scale": 1.0}
        return self.preparation.model_copy(update={**numbers, "source": source})


class RunConfig(Options):
    """``config.json``; its parts on data, recipe and seed are read elsewhere."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    schema_version: Literal[1]
    model: ModelConfig


def is_run_folder(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def is_sequence_run(folder: Path) -> bool:
    """Whether ``folder`` holds the run of a sequence task rather than of images; False for what cannot be read."""
    try:
        return is_sequence_config(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def is_sequence_config(content: Any) -> bool:
    match content:
        case {"model": {"reads": str()}, "data": {"name": str()}}:
            return True
    return False


def read_config(folder: Path) -> ModelConfig:
    """The model's part of ``folder/config.json``. Raises :class:`ModelError` naming the field that is wrong."""
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if is_sequence_config(content):
            got = f"one on the task {content['data']['name']}, which `assay trace {folder}` looks into"
            raise ModelError(str(path), expected="a run on images", got=got)
        return RunConfig.model_validate(content).model
    except OSError as error:
        raise ModelError(str(path), expected="a file that can be read", got=error.strerror or error) from None
    except ValidationError as error:
        wrong = option_error(error, where=str(path))
        raise ModelError(wrong.where, expected=wrong.expected, got=wrong.got) from None
    except ValueError as error:
        raise ModelError(str(path), expected="JSON", got=error) from None


def structure_of_run(folder: Path) -> Structure | None:
    """What the network of a run folder is built from; None where its configuration names code of the user's."""
    config = read_config(folder)
    named = parse_architecture(config.name)
    if named is None:
        return None
    name, options = named
    return Structure(name, options | {key: value for key, value in config.options.items() if key not in PUBLISHED})


def plan_run(spec: str, request: ModelRequest) -> Blueprint:
    """The architecture and the weights of a run folder; its configuration can name none that would run code."""
    folder = Path(spec)
    config = read_config(folder)
    structure = structure_of_run(folder)
    if structure is None:
        expected = "an architecture of ours, torchvision:NAME or timm:NAME (a run folder names no code to run)"
        got = f"{config.name!r}; name the code yourself, with --weights {folder / WEIGHTS}"
        raise ModelError(f"{folder / CONFIG}: model.name", expected=expected, got=got)
    normalization = config.normalization if request.normalization is None else request.normalization
    same_name = (f"{folder} is a run folder here, and taken before the architecture of that name",)
    return replace(
        plan_named(structure.name, ModelRequest(config.image_shape, normalization, request.seed), structure.options),
        classes=len(config.classes),
        class_names=config.classes,
        weights=folder / WEIGHTS,
        notes=same_name if str(folder) in ARCHITECTURES else (),
        preparation=config.prepared(source=str(folder)),
    )
