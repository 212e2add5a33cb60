"""Write a compressed network down so that it loads wherever a model loads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from assay.arguments import checked
from assay.errors import ModelError
from assay.files import make_folder, write_atomically
from assay.models.calls import calling, refusing
from assay.models.classes import MatchedClasses
from assay.models.factorized import LayerFactors, read_structure, write_structure
from assay.models.probes import relative_gap
from assay.models.sources import find_blueprint, load_model
from assay.models.sources.blueprint import ModelRequest, Structure
from assay.models.sources.named import parse_architecture
from assay.models.sources.run_folder import CONFIG, WEIGHTS, is_run_folder
from assay.records.preparation import Preparation
from assay.runtime import generator
from assay.training.checkpoint import normalization_of, write_weights


@checked
def save_compressed(
    out: Path,
    model: nn.Module,
    factorization: Sequence[LayerFactors],
    *,
    spec: str,
    classes: tuple[str, ...],
    image_shape: tuple[int, int, int],
    options: Mapping[str, object] | None = None,
    preparation: Preparation | None = None,
) -> None:
    """Write ``model.safetensors``, its structure in the header, and ``config.json`` where the model has a name.

    A model that a user's own code makes gets no config, for a folder names no code to run:
    ``file.py:factory --weights OUT/model.safetensors`` loads it. ``options`` are those of the architecture that
    ``spec`` does not spell, ``preparation`` is that of the data. Where the model is matched to classes of the data, all
    its own outputs are written.
    What is written is read again before it enters ``out``; :class:`ModelError` where that is not the model.
    """
    if isinstance(model, MatchedClasses):
        classes, model = model.class_names, model.model
        factorization = [
            factors.model_copy(update={"layer": factors.layer.removeprefix("model.")}) for factors in factorization
        ]
    source = Path(spec)
    if is_run_folder(source):  # chains of an earlier compression come first: the new ones may lie inside them
        factorization = [*read_structure(source), *factorization]
        described = json.loads((source / CONFIG).read_text(encoding="utf-8"))["model"]
    elif (structure := _structure(spec, image_shape)) is not None:
        described = {
            "name": structure.name,
            "classes": list(classes),
            "image_shape": list(image_shape),
            **normalization_of(model),
            "options": {**structure.options, **(options or {})},
        }
        if preparation is not None:
            described["preparation"] = preparation.model_dump(mode="json", exclude_defaults=True)
    else:
        described = None
    with tempfile.TemporaryDirectory(prefix=".", dir=make_folder(out)) as written:
        folder = Path(written)
        write_weights(folder / WEIGHTS, model.state_dict(), metadata=write_structure(factorization) or None)
        if described is not None:
            text = json.dumps({"schema_version": 1, "model": described}, indent=2, ensure_ascii=False)
            write_atomically(folder / CONFIG, text + "\n")
        _check_saved(folder, model, factorization, image_shape=image_shape)
        (out / CONFIG).unlink(missing_ok=True)  # that of another model
        for path in sorted(folder.iterdir(), reverse=True):  # the configuration last
            path.replace(out / path.name)


def _structure(spec: str, image_shape: tuple[int, int, int]) -> Structure | None:
    """What the model of a name is built from again; None for code of the user's, which is not run for that."""
    if parse_architecture(spec) is None:
        return None
    with suppress(ModelError):  # one that needs code of its own
        return find_blueprint(spec, ModelRequest(image_shape)).structure
    return None


def _check_saved(
    folder: Path, model: nn.Module, factorization: Sequence[LayerFactors], *, image_shape: tuple[int, int, int]
) -> None:
    """Raise :class:`ModelError` unless what is in ``folder`` is ``model``, and where it loads puts out the same."""
    saved, tensors = load_file(folder / WEIGHTS), model.state_dict()
    unequal = [
        n for n in tensors.keys() | saved.keys() if n not in saved or n not in tensors or _differ(saved[n], tensors[n])
    ]
    if unequal or read_structure(folder) != tuple(factorization):
        raise ModelError(
            "saved model", expected="the tensors and the structure of the model", got=f"other ones: {unequal}"
        )
    if not is_run_folder(folder):
        return
    images = torch.rand(2, *image_shape, generator=generator(0x5C))
    with refusing(model, expected="a folder that loads", where="saved model"):
        loaded = load_model(folder)
    with calling(model, images) as network, calling(loaded, images) as again, torch.no_grad():
        expected, outputs = network(images).cpu(), again(images).cpu()
        rounding = 4 * torch.finfo(network.dtype).eps ** 0.5 if network.dtype.itemsize < 4 else 1e-4
    if outputs.shape != expected.shape or relative_gap(outputs, expected, expected) > rounding:
        raise ModelError("saved model", expected="the outputs of the model once it is loaded", got="other outputs")


def _differ(first: Tensor, second: Tensor) -> bool:
    return not torch.equal(first.nan_to_num(), second.cpu().nan_to_num())
