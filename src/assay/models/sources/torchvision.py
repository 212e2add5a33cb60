"""The classifiers of torchvision, made to take pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from assay.errors import ModelError
from assay.models.architectures import near
from assay.models.sources.blueprint import Blueprint, ModelRequest, Structure
from assay.models.sources.library import (
    LIBRARY_CLASSES,
    LIBRARY_SHAPE,
    count_of_classes,
    imagenet_synsets,
    library,
)
from assay.models.wrappers import Normalize, Normalized, choose_normalization
from assay.records.preparation import Preparation


def plan_torchvision(where: str, request: ModelRequest, options: Mapping[str, object]) -> Blueprint:
    """A classifier of ``torchvision.models``, behind ImageNet's normalisation.

    Weights are random unless the option ``weights`` names some, such as ``IMAGENET1K_V1`` or ``DEFAULT``, which are
    fetched when torch's cache does not have them. The other options are the builder's. A grey image is shown to all
    three channels. Raises :class:`ModelError`, :class:`DependencyError`.
    """
    name, image_shape = where.partition(":")[2], request.image_shape
    with library("torchvision", where):
        from torchvision import models
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(where, expected=f"one of torchvision's {len(known)} classifiers", got=near(name, known))
    if image_shape is not None and image_shape[0] not in {1, 3}:
        raise ModelError(where, expected="images of one or three channels", got=f"{image_shape[0]} channels")
    normalize = choose_normalization(request.normalization, channels=3)
    weights, fixed, names = options.get("weights"), options.get("num_classes"), None
    preparation: Preparation | None = None
    if weights is not None:
        offered = models.get_model_weights(name).__members__
        if weights not in offered:
            got = near(str(weights), offered)
            raise ModelError(f"{where}: weights", expected=f"one of {', '.join(offered)}", got=got)
        names = tuple(offered[str(weights)].meta["categories"])
        preparation = prepared_for(offered[str(weights)].transforms(), source=f"{where}, weights {weights}")

    if image_shape is None:
        image_shape = (3, *preparation.size) if preparation is not None and preparation.size else LIBRARY_SHAPE

    def make(classes: int) -> nn.Module:
        arguments = {"weights": None, **({"num_classes": classes} if weights is None else {}), **options}
        with library("torchvision", where):
            return Normalized(Normalize(normalize), models.get_model(name, **arguments)).eval()

    return Blueprint(
        make,
        image_shape,
        classes=count_of_classes(fixed, where=where) if names is None else len(names),
        class_names=names,
        synonyms=(imagenet_synsets(),) if names is not None and len(names) == LIBRARY_CLASSES else (),
        default_classes=LIBRARY_CLASSES,
        has_weights=weights is not None,
        preparation=preparation,
        structure=Structure(where, _built_with(name, options, None if weights is None else offered[str(weights)].meta)),
    )


def _built_with(name: str, options: Mapping[str, object], published: Mapping[str, Any] | None) -> dict[str, object]:
    """The arguments from which the builder gives the same network: with ``published`` weights it changes some."""
    built: dict[str, object] = {}
    if published is not None and name in {"googlenet", "inception_v3"}:
        built = {"transform_input": True, "aux_logits": name == "inception_v3"}
    elif published is not None and name.startswith("vit_"):
        built = {"image_size": published["min_size"][0]}
    return {**built, **{key: value for key, value in options.items() if key not in {"weights", "num_classes"}}}


def prepared_for(transforms: Any, *, source: str) -> Preparation | None:
    """What the transforms of published weights do (a preset ``ImageClassification``); None for another kind."""
    fields = ("resize_size", "crop_size", "interpolation", "mean", "std")
    if not all(hasattr(transforms, field) for field in fields):
        return None
    resize, crop = (tuple(getattr(transforms, field)) for field in fields[:2])
    return Preparation(
        resize=resize[0] if len(resize) == 1 else resize,
        fit="short" if len(resize) == 1 else "squash",
        crop=crop * 2 if len(crop) == 1 else crop,
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        source=source,
    )
