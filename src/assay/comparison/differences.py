"""One measure in two checks: its difference, an interval, and a test; paired wherever the samples allow it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.comparison.measures import Grade, Share, area_of, held_under_operations, list_shares
from assay.comparison.statistics import (
    Resampled,
    fisher,
    mcnemar,
    newcombe,
    newcombe_paired,
    p_of_zero,
    percentile_interval,
    resample_apart,
    resample_paired,
)
from assay.records.attack import EpsilonCurve
from assay.records.augmentation import Invariance
from assay.records.checkup import Checkup, Subject
from assay.records.comparison import CurveDifference, CurvePoint, Difference
from assay.records.samples import SampleBits, SampleLevels, SampleSet


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


@dataclass
class Found:
    """What two checks have in common, not yet corrected for the number of tests."""

    differences: list[Difference] = field(default_factory=list)
    curves: list[CurveDifference] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)


def find_differences(reference: Checkup, candidate: Checkup, *, seed: int) -> Found:
    """Every measure that both checks took under the same setting; for every other, why it was left out."""
    found, subjects = Found(), (reference.subject, candidate.subject)
    others = list_shares(candidate)
    shares = list_shares(reference)
    for share in shares:
        alike = [other for other in others if other.topic == share.topic]
        same = [other for other in alike if other.setting == share.setting]
        other = next(iter((*same, *alike)), None)
        if not _comparable(share, other, found) or other is None:
            continue
        match = match_samples(_samples_of(share.bits), _samples_of(other.bits), subjects=subjects)
        if isinstance(match, str) or share.bits is None or other.bits is None:
            found.unpaired.append(f"{share.name}: {match}")
            found.differences.append(_compare_apart(share, other))
            continue
        left = np.array(share.bits.unpack(), dtype=bool)[match.reference]
        right = np.array(other.bits.unpack(), dtype=bool)[match.candidate]
        found.differences.append(paired_difference(share.name, left, right, note=match.note))
    topics = {share.topic for share in shares}
    found.left_out += [f"{other.name}: not measured in the reference" for other in others if other.topic not in topics]
    _add_curves(reference, candidate, found, seed=seed)
    _add_invariance(reference, candidate, found, seed=seed)
    return found


def paired_difference(
    measure: str, before: NDArray[np.bool_], after: NDArray[np.bool_], *, note: str = ""
) -> Difference:
    """Two answers, right or wrong, to each of the same samples (N,): McNemar's test and Newcombe's paired interval."""
    both, lost, gained = (int(x.sum()) for x in (before & after, before & ~after, ~before & after))
    n = len(before)
    low, high = newcombe_paired(both, lost, gained, n - both - lost - gained)
    return Difference(
        measure=measure,
        reference=float(before.mean()),
        candidate=float(after.mean()),
        difference=(gained - lost) / n,
        low=low,
        high=high,
        test="McNemar's exact test",
        paired=True,
        n=n,
        n_candidate=n,
        lost=lost,
        gained=gained,
        p=mcnemar(lost, gained),
        note=note,
    )


def _samples_of(kept: SampleBits | SampleLevels | None) -> SampleSet | None:
    return None if kept is None else kept.samples


def _comparable(one: Share | Grade, other: Share | Grade | None, found: Found) -> bool:
    if other is None:
        found.left_out.append(f"{one.name}: not measured in the candidate")
    elif one.setting != other.setting:
        found.left_out.append(f"{one.topic}: measured differently ({one.setting} against {other.setting})")
    return other is not None and one.setting == other.setting


def _compare_apart(share: Share, other: Share) -> Difference:
    a, b = share.proportion, other.proportion
    low, high = newcombe(a.correct, a.n, b.correct, b.n)
    return Difference(
        measure=share.name,
        reference=a.accuracy,
        candidate=b.accuracy,
        difference=b.accuracy - a.accuracy,
        low=low,
        high=high,
        test="Fisher's exact test",
        paired=False,
        n=a.n,
        n_candidate=b.n,
        p=fisher(a.correct, a.n, b.correct, b.n),
    )


def _add_curves(reference: Checkup, candidate: Checkup, found: Found, *, seed: int) -> None:
    curves = {(curve.attack, curve.norm): curve for curve in candidate.each(EpsilonCurve)}
    for curve in reference.each(EpsilonCurve):
        other = curves.get((curve.attack, curve.norm))
        area = area_of(curve)
        if not _comparable(area, None if other is None else area_of(other), found) or other is None:
            continue
        drawn = _resample(area, area_of(other), reference, candidate, found, seed=seed)
        if drawn is None:
            continue
        points = []
        for place, point in enumerate(curve.points):
            above = (np.arange(len(area.worth)) > place).astype(float)
            difference, draws = drawn.difference(above)
            low, high = percentile_interval(draws)
            points.append(
                CurvePoint(
                    epsilon=point.epsilon,
                    reference=float(drawn.reference @ above / drawn.reference.sum()),
                    candidate=float(drawn.candidate @ above / drawn.candidate.sum()),
                    difference=difference,
                    low=low,
                    high=high,
                )
            )
        found.curves.append(
            CurveDifference(
                attack=curve.attack,
                norm=curve.norm,
                steps=curve.steps,
                area=area.name,
                points=tuple(points),
                median_reference=curve.median_epsilon,
                median_candidate=other.median_epsilon,
            )
        )


def _add_invariance(reference: Checkup, candidate: Checkup, found: Found, *, seed: int) -> None:
    one, other = reference.first(Invariance), candidate.first(Invariance)
    if one is None:
        return
    held = held_under_operations(one)
    again = None if other is None else held_under_operations(other)
    if _comparable(held, again, found) and again is not None:
        _resample(held, again, reference, candidate, found, seed=seed)


def _resample(
    one: Grade, other: Grade, reference: Checkup, candidate: Checkup, found: Found, *, seed: int
) -> Resampled | None:
    """Bootstrap the two and note their difference; None, and a line in ``left_out``, where neither way is possible."""
    match = match_samples(
        _samples_of(one.levels),
        _samples_of(other.levels),
        subjects=(reference.subject, candidate.subject),
    )
    paired, note, n = False, "", (one.n, other.n)
    if not isinstance(match, str) and one.levels is not None and other.levels is not None:
        left, right = (np.minimum(each.levels.unpack(), len(one.worth) - 1) for each in (one, other) if each.levels)
        drawn = resample_paired(left[match.reference], right[match.candidate], levels=len(one.worth), seed=seed)
        paired, note, n = True, match.note, (len(match.reference), len(match.candidate))
    elif one.counts is not None and other.counts is not None:
        found.unpaired.append(f"{one.topic}: {match}")
        drawn = resample_apart(np.array(one.counts), np.array(other.counts), seed=seed)
    else:
        found.left_out.append(f"{one.topic}: {match}")
        return None
    worth = np.array(one.worth)
    difference, draws = drawn.difference(worth)
    low, high = percentile_interval(draws)
    found.differences.append(
        Difference(
            measure=one.topic,
            reference=float(drawn.reference @ worth / drawn.reference.sum()),
            candidate=float(drawn.candidate @ worth / drawn.candidate.sum()),
            difference=difference,
            low=low,
            high=high,
            test="bootstrap",
            paired=paired,
            n=n[0],
            n_candidate=n[1],
            p=p_of_zero(draws),
            note=note,
        )
    )
    return drawn
