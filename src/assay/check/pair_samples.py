"""The same samples for several models, each in its own preparation; what of a pair cannot be measured is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from assay.check.attempt import find_way_out
from assay.data.dataset import ImageDataset, identify_samples
from assay.errors import AssayError, DataError, InterruptedRunError, ModelError, describe_error
from assay.models.classes import few
from assay.records.failure import FailedMeasurement

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """A model, its name, and the images as it takes them; ``notes`` are what must be known of it."""

    model: nn.Module
    name: str
    dataset: ImageDataset
    notes: tuple[str, ...] = ()


def match_samples(models: Sequence[PreparedModel]) -> list[PreparedModel]:
    """The same with the samples that all have, in the order of the first; equal images are held once.

    Raises :class:`DataError` for other classes, for other labels of the same samples, or where none is common to all.
    """
    reference, *others = models
    for each in others:
        if each.dataset.classes != reference.dataset.classes:
            wanted, got = (few(dataset.classes) for dataset in (reference.dataset, each.dataset))
            raise DataError(f"{each.name}: classes", expected=f"those of {reference.name} ({wanted})", got=got)
    data = reference.dataset
    common = reduce(np.intersect1d, [each.dataset.ids.numpy() for each in models])
    if len(common) == 0:
        expected = f"samples of {data.name} that every model is given"
        raise DataError("samples", expected=expected, got="none that all have in common")
    most = max(len(each.dataset) for each in models)
    note = (f"compared on the {len(common):,} samples that all were given, of {most:,}",) if len(common) < most else ()
    ids = data.ids[torch.from_numpy(np.isin(data.ids.numpy(), common))]
    matched: list[PreparedModel] = []
    for each in models:
        own = each.dataset if torch.equal(each.dataset.ids, ids) else each.dataset.arranged(ids)
        matched.append(replace(each, dataset=own, notes=(*each.notes, *note)))
    first = identify_samples(matched[0].dataset)
    for place, each in enumerate(matched[1:], start=1):
        known = first if each.dataset is matched[0].dataset else identify_samples(each.dataset)
        if known.labels != first.labels:
            got = f"other labels for {each.name} than for {reference.name}"
            raise DataError("samples", expected="the same labels for all models", got=got)
        if known.pixels == first.pixels:
            matched[place] = replace(each, dataset=matched[0].dataset)
    return matched


def require_same_pixels(reference: PreparedModel, candidate: PreparedModel) -> None:
    """Raise :class:`ModelError` where the models are given other pixels of the same pictures."""
    if candidate.dataset is not reference.dataset:
        one, other = (_pixels(each.dataset) for each in (reference, candidate))
        expected = "models that are given the same pixels"
        raise ModelError("model", expected=expected, got=f"{one} for {reference.name}, {other} for {candidate.name}")


def _pixels(dataset: ImageDataset) -> str:
    _, height, width = dataset.shape
    size = f"{width}x{height}"
    return size if dataset.preparation is None else f"{size} by {dataset.preparation.spelled}"


def attempt(measure: Callable[[], T], *, name: str, gives: str) -> T | FailedMeasurement:
    """What ``measure`` returns, or why it failed: a model is anybody's code, and the rest is measured all the same."""
    try:
        return measure()
    except InterruptedRunError:
        raise
    except Exception as error:
        return FailedMeasurement(
            stage="comparison",
            measurement=name,
            missing=(gives,),
            reason=describe_error(error),
            way_out=find_way_out(error),
            # What a model raised is the cause of the error that the gate makes of it; a refusal of ours has none.
            refused=isinstance(error, AssayError) and error.__cause__ is None,
        )
