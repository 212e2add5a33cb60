"""Which samples two measurements have in common, or why they have none that can be paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.records.checkup import Subject
from assay.records.samples import SampleSet


@dataclass(frozen=True, eq=False)
class Match:
    """Places (M,) of the common samples in the one set and in the other; ``note`` says what was passed over."""

    reference: NDArray[np.int64]
    candidate: NDArray[np.int64]
    note: str = ""


def match_samples(
    reference: SampleSet | None, candidate: SampleSet | None, *, subjects: tuple[Subject, Subject]
) -> Match | str:
    """The common samples, or one sentence saying why they cannot be paired.

    The same ids, labels and pixels pair whole. Parts of one data set (the whole of which both checks identify) pair on
    the ids that both have. Pictures prepared in another size pair by id where data set, split and labels are the same.
    """
    if reference is None or candidate is None:
        return "one of the documents was written by an assay that did not keep the samples"
    if _same(reference, candidate):
        everything = np.arange(reference.n)
        return Match(everything, everything)
    if reference.labels == candidate.labels:
        return _match_sizes(reference, subjects)
    if (reference.ids, reference.pixels) == (candidate.ids, candidate.pixels):
        return "the same pictures with other labels"
    return _match_parts(reference, candidate, subjects)


def _match_parts(reference: SampleSet, candidate: SampleSet, subjects: tuple[Subject, Subject]) -> Match | str:
    whole = [subject.samples for subject in subjects]
    if whole[0] is None or whole[1] is None or not _same(whole[0], whole[1]):
        return f"other samples ({_describe(reference, subjects[0])} against {_describe(candidate, subjects[1])})"
    common, left, right = np.intersect1d(
        reference.list_ids(), candidate.list_ids(), assume_unique=True, return_indices=True
    )
    if len(common) == 0:
        return "two parts of the same data that have no sample in common"
    most = max(reference.n, candidate.n)
    note = f"paired on the {len(common):,} samples that both saw, of {most:,}" if len(common) < most else ""
    return Match(left, right, note)


def _match_sizes(reference: SampleSet, subjects: tuple[Subject, Subject]) -> Match | str:
    a, b = subjects
    shapes = [shape for shape in (a.image_shape, b.image_shape) if shape is not None]
    if (a.data, a.split) == (b.data, b.split) and len(set(shapes)) == 2:
        everything = np.arange(reference.n)
        sizes = " against ".join(f"{width} × {height}" for _, height, width in shapes)
        return Match(everything, everything, f"paired by id, the pictures prepared in another size ({sizes})")
    return "the same ids and labels, but other pixels"


def _same(a: SampleSet, b: SampleSet) -> bool:
    return (a.ids, a.labels, a.pixels) == (b.ids, b.labels, b.pixels)


def _describe(samples: SampleSet, subject: Subject) -> str:
    return f"{samples.n:,} of {subject.data}, {subject.split}"
