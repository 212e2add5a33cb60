"""The networks of timm, made to take pixels in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from assay.errors import ModelError
from assay.models.architectures import near
from assay.models.sources.blueprint import Blueprint, ModelRequest, Structure
from assay.models.sources.hub import fetch_model, read_json, require_safetensors
from assay.models.sources.library import (
    LIBRARY_CLASSES,
    LIBRARY_SHAPE,
    count_of_classes,
    imagenet_synsets,
    library,
)
from assay.models.wrappers import PRESETS, Normalize, Normalized, choose_normalization
from assay.records.preparation import Preparation

IMAGENET = PRESETS["imagenet"]
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def plan_timm(where: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """A network of timm, for the channels of the images, behind the normalisation of its published configuration.

    It is named as timm names it, as ``hf-hub:OWNER/NAME``, or by a folder that timm wrote, ``FOLDER`` or
    ``local-dir:FOLDER``. Weights are random unless they lie in such a folder, in safetensors, or the option
    ``pretrained`` is true, which fetches them when the cache does not have them.
    The other options are those of ``timm.create_model``. Raises :class:`ModelError`, :class:`DependencyError`.
    """
    name = where.partition(":")[2]
    if (Path(name) / CONFIG).is_file():
        name = f"local-dir:{name}"
    with library("timm", where):
        import timm
    arguments: Mapping[str, Any] = {}
    if ":" in name:
        options = {"pretrained": True, **options}
        folder = _find_folder(name, with_weights=bool(options["pretrained"]), where=where)
        with library("timm", where):
            from timm.models._hub import load_model_config_from_path

            published, architecture, arguments = load_model_config_from_path(folder)
        name = f"local-dir:{folder}"
    elif not timm.is_model(name):
        known = timm.list_models()
        raise ModelError(where, expected=f"one of timm's {len(known)} models", got=near(name, known))
    else:
        with library("timm", where):
            known_as = timm.get_pretrained_cfg(name)
        architecture, published = name, {} if known_as is None else vars(known_as)
    image_shape = request.image_shape
    if image_shape is None:
        image_shape = tuple(published.get("input_size") or ())
        image_shape = image_shape if len(image_shape) == 3 else LIBRARY_SHAPE
    channels, has_weights = image_shape[0], bool(options.get("pretrained"))
    trained = published.get("num_classes") if has_weights else None
    fixed = count_of_classes(options.get("num_classes", trained), where=where)
    notes: tuple[str, ...] = ()
    if trained is not None and fixed != trained:
        notes = (f"{where} has a random last layer: its weights are of {trained} classes, not of {fixed}",)

    def make(classes: int) -> nn.Module:
        with library("timm", where):
            inner = timm.create_model(name, **{"in_chans": channels, "num_classes": classes, **options})
        config = getattr(inner, "pretrained_cfg", {})
        own = (config["mean"], config["std"]) if len(config.get("mean") or ()) == channels else None
        chosen = own if request.normalization is None else request.normalization
        return Normalized(Normalize(choose_normalization(chosen, channels=channels)), inner).eval()

    names = tuple(map(str, published.get("label_names") or ())) if trained is not None and fixed == trained else ()
    synonyms: tuple[tuple[str, ...], ...] = ()
    if trained == fixed == LIBRARY_CLASSES and not names:
        described = tuple(timm.data.ImageNetInfo().label_descriptions())
        names, synonyms = tuple(each.partition(",")[0] for each in described), (imagenet_synsets(), described)
    return Blueprint(
        make,
        image_shape,
        classes=fixed,
        class_names=names or None,
        synonyms=synonyms,
        default_classes=LIBRARY_CLASSES,
        has_weights=has_weights,
        notes=notes,
        preparation=prepared_for(published, options, source=f"{where}, pretrained_cfg") if has_weights else None,
        structure=Structure(
            f"timm:{architecture}", _built_with(published, {**arguments, **options}, channels=channels)
        ),
    )


def _find_folder(name: str, *, with_weights: bool, where: str) -> Path:
    """The folder of ``local-dir:FOLDER``, or that of the cache for ``hf-hub:OWNER/NAME``, with what is needed in it."""
    source, _, rest = name.partition(":")
    source = source.replace("_", "-")
    if source not in {"hf-hub", "local-dir"}:
        expected = "timm:NAME, timm:hf-hub:OWNER/NAME or timm:local-dir:FOLDER"
        raise ModelError(where, expected=expected, got=f"{source}:")
    if source == "hf-hub":
        folder = fetch_model(rest, files=(CONFIG, *([WEIGHTS] if with_weights else [])), where=where)
    else:
        folder = Path(rest).expanduser()
    content = read_json(folder / CONFIG, where=where)
    if not isinstance(content.get("architecture"), str):
        hint = " of transformers: name it transformers:FOLDER" if "model_type" in content else " without one"
        raise ModelError(where, expected=f"a {CONFIG} with timm's name of an architecture", got=f"one{hint}")
    if with_weights:
        require_safetensors(folder, WEIGHTS, where=where)
    return folder


def _built_with(published: Mapping[str, Any], options: Mapping[str, Any], *, channels: int) -> dict[str, object]:
    """The arguments from which the architecture alone gives the same network."""
    built: dict[str, object] = {"in_chans": channels}
    if published.get("fixed_input_size"):
        built["img_size"] = list(published["input_size"][1:])
    if published.get("global_pool"):
        built["global_pool"] = published["global_pool"]
    return {**built, **{key: value for key, value in options.items() if key not in {"pretrained", "num_classes"}}}


def prepared_for(published: Mapping[str, Any], options: Mapping[str, object], *, source: str) -> Preparation:
    """What ``timm.data.create_transform`` does for a published configuration, with timm's defaults where it is silent.

    The size for training is taken, as timm's own ``resolve_data_config`` does unless it is told otherwise.
    """
    _, height, width = published.get("input_size") or LIBRARY_SHAPE
    if isinstance(chosen := options.get("img_size"), int):
        height = width = chosen
    share, mode = published.get("crop_pct") or 0.875, published.get("crop_mode") or "center"
    resize = (math.floor(height / share), math.floor(width / share))
    mean, std = (tuple(published.get(name) or default) for name, default in zip(("mean", "std"), IMAGENET, strict=True))
    fits = {"squash": "squash", "border": "border"}
    short = mode not in fits and resize[0] == resize[1]
    return Preparation.model_validate(
        {
            "resize": resize[0] if short else resize,
            "fit": "short" if short else fits.get(mode, "cover"),
            "crop": (height, width),
            "fill": [round(255 * value) for value in mean] if mode == "border" else None,
            "interpolation": published.get("interpolation") or "bicubic",
            "mean": mean,
            "std": std,
            "source": source,
        }
    )
