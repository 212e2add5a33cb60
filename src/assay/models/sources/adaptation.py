"""A model that was trained before, made ready to be trained on the classes of other data: :func:`adapt_model`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import ModelError
from assay.models.classes import match_classes
from assay.models.heads import head_parameters, replace_head
from assay.models.sources import LoadedModel, find_blueprint, open_model
from assay.models.sources.blueprint import Blueprint, ModelRequest, NormalizationChoice, Structure
from assay.models.sources.named import plan_named
from assay.runtime import preserved


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """A model with a logit for each class of the data.

    ``structure`` is what it is built from again (None: only its source can). ``notes`` are sentences that a user should
    see: which last layer it has, and whether the rest was trained.
    """

    model: nn.Module
    structure: Structure | None
    notes: tuple[str, ...]


def adapt_model(
    spec: str,
    *,
    classes: Sequence[str],
    image_shape: tuple[int, int, int],
    weights: Path | None = None,
    normalization: NormalizationChoice = None,
    seed: int = 0,
    trust_code: bool = False,
) -> AdaptedModel:
    """The model of ``spec`` for these ``classes``: its own last layer where they are its own, else a new one.

    Where the model knows all of them by name, in another order or among others, a new last layer has its own rows for
    them; else its weights are random and follow from ``seed``. Arguments and errors are those of
    :func:`~assay.models.sources.open_model`; :class:`ModelError` also for a model whose last layer cannot be found.
    """
    request = ModelRequest(image_shape, normalization, seed, trust_code)
    with torch.random.fork_rng(devices=[]):
        blueprint = find_blueprint(spec, request)
    trained = weights is not None or blueprint.weights is not None or blueprint.has_weights is not False
    opened = open_model(
        spec,
        weights=weights,
        classes=None if trained else len(classes),
        image_shape=image_shape,
        normalization=normalization,
        seed=seed,
        trust_code=trust_code,
    )
    columns = _columns(opened, blueprint, tuple(classes))
    if columns == tuple(range(opened.classes)) and len(classes) == opened.classes:
        return AdaptedModel(opened.model, blueprint.structure, (*opened.notes, *_about_names(opened, classes)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, new = _with_new_head(opened, blueprint, request, classes=len(classes), columns=columns)
    rows = "random" if columns is None else f"that of {len(classes)} of its {opened.classes} classes"
    notes = [note for note in opened.notes if "random last layer" not in note]
    return AdaptedModel(model, blueprint.structure, (*notes, f"{spec} has a new last layer ({', '.join(new)}): {rows}"))


def _columns(opened: LoadedModel, blueprint: Blueprint, classes: tuple[str, ...]) -> tuple[int, ...] | None:
    """The output of the model for each class of the data; None where its outputs are of other classes."""
    if opened.class_names is None:
        return tuple(range(opened.classes)) if len(classes) == opened.classes else None
    synonyms = blueprint.synonyms if opened.class_names == blueprint.class_names else ()
    try:
        return match_classes((opened.class_names, *synonyms), classes, where=opened.name).columns
    except ModelError:
        return None


def _about_names(opened: LoadedModel, classes: Sequence[str]) -> tuple[str, ...]:
    if opened.class_names is None and not any("random" in note for note in opened.notes):
        return (f"{opened.name} does not name its {len(classes)} classes: its last layer is kept, class by class",)
    return ()


def _with_new_head(
    opened: LoadedModel,
    blueprint: Blueprint,
    request: ModelRequest,
    *,
    classes: int,
    columns: tuple[int, ...] | None,
) -> tuple[nn.Module, list[str]]:
    """The model with a last layer for ``classes``, and the names of its parameters."""
    structure = blueprint.structure
    again = blueprint if structure is None else plan_named(structure.name, request, structure.options)
    fresh, images = again.make(classes), torch.zeros(2, *opened.image_shape)
    with preserved(fresh, training=False), torch.no_grad():
        follows = fresh(images).shape[1] == classes  # a user's own code may make one network whatever is asked for
    if not follows:
        return opened.model, list(replace_head(opened.model, images, classes=classes))
    own, target = opened.model.state_dict(), fresh.state_dict()
    if strange := sorted(own.keys() ^ target.keys()):
        got = f"{strange[0]} in one of them alone"
        raise ModelError(opened.name, expected="the same tensors for other classes", got=got)
    head = {name for name in target if _shape(own[name]) != _shape(target[name])}
    if not head:
        head = set(head_parameters(opened.model, images))
    for name in own.keys() - head:
        target[name] = own[name]
    for name in head:
        axis = _class_axis(own[name], target[name], count=opened.classes, where=f"{opened.name}: {name}")
        if columns is not None and axis is not None:
            target[name] = own[name].index_select(axis, torch.tensor(columns))
    fresh.load_state_dict(target)
    return fresh, [name for name in target if name in head]


def _class_axis(own: Tensor, target: Tensor, *, count: int, where: str) -> int | None:
    """The axis of the classes, which has another size for other classes; None for a tensor without one.

    Raises :class:`ModelError` for a tensor that differs in more than that.
    """
    if own.shape == target.shape:
        return 0 if own.ndim and len(own) == count else None
    axes = [axis for axis, sizes in enumerate(zip(own.shape, target.shape, strict=False)) if len(set(sizes)) > 1]
    if own.ndim != target.ndim or len(axes) != 1 or own.shape[axes[0]] != count:
        raise ModelError(where, expected=f"one axis of its {count} classes", got=f"{_shape(own)} and {_shape(target)}")
    return axes[0]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
