"""What a run folder says about its model: the part of ``config.json`` that is needed to build it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from assay.errors import ModelError
from assay.options import Options, option_error

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class ModelConfig(Options):
    """``name`` and ``options`` of the architecture, class names by label, image shape (C, H, W), normalisation."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    name: str
    classes: tuple[str, ...] = Field(min_length=2)
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _both_or_none(self) -> ModelConfig:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std together, or neither")
        return self

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation as the builders take them."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)


class RunConfig(Options):
    """``config.json``; what it says about data, recipe and seed is for others to read."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    schema_version: Literal[1]
    model: ModelConfig


def is_run_folder(folder: Path) -> bool:
    """Whether ``folder`` holds a ``config.json``."""
    return (folder / CONFIG).is_file()


def is_sequence_run(folder: Path) -> bool:
    """Whether ``folder`` holds the run of a sequence task rather than of images; False for what cannot be read."""
    try:
        return is_sequence_config(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def is_sequence_config(content: Any) -> bool:
    """Whether a ``config.json`` speaks of a sequence task."""
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
