"""A compressed network on disk: it loads wherever a model loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import nn

from assay.files import write_atomically
from assay.models.architectures import ARCHITECTURES
from assay.models.factorized import LayerFactors, write_structure
from assay.models.libraries import LIBRARIES
from assay.models.loading import parse_options
from assay.models.run_folder import CONFIG, WEIGHTS, is_run_folder


def save_compressed(
    out: Path,
    model: nn.Module,
    factorization: Sequence[LayerFactors],
    *,
    spec: str,
    classes: tuple[str, ...],
    image_shape: tuple[int, int, int],
    options: Mapping[str, object] | None = None,
) -> None:
    """Write ``model.safetensors``, its structure in the header, and ``config.json`` where the model has a name.

    A model that a user's own code makes gets no config, for a folder names no code to run:
    ``file.py:factory --weights OUT/model.safetensors`` loads it. ``options`` are those of the architecture that
    ``spec`` does not spell.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_atomically(out / WEIGHTS, save(tensors, metadata=write_structure(factorization) or None))
    if is_run_folder(Path(spec)):
        described = json.loads((Path(spec) / CONFIG).read_text(encoding="utf-8"))["model"]
    else:
        name, spelled = parse_options(spec)
        if name not in ARCHITECTURES and name.partition(":")[0] not in LIBRARIES:
            return
        plain = {key: value for key, value in spelled.items() if key not in {"weights", "pretrained"}}
        described = {
            "name": name,
            "classes": list(classes),
            "image_shape": list(image_shape),
            **_normalization(model),
            "options": {**plain, **(options or {})},
        }
    config = {"schema_version": 1, "model": described}
    write_atomically(out / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _normalization(model: nn.Module) -> dict[str, list[float]]:
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if {"mean", "std"} <= buffers.keys():
            return {name: buffers[name].flatten().tolist() for name in ("mean", "std")}
    return {}
