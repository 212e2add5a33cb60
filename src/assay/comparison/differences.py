"""One measure in two checks: its difference, a confidence interval and a test; paired where the samples allow it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.comparison.measures import Measure, ScoreMeasure, area_under_curve, list_accuracies, operation_score
from assay.comparison.statistics import Exchanged, Resampled, exchange_pairs, p_of_zero, resample_independent
from assay.intervals import newcombe, newcombe_paired
from assay.records.accuracy import Invariance, Proportion
from assay.records.attack import EpsilonCurve
from assay.records.checkup import Checkup, Subject
from assay.records.comparison import CurveDifference, CurvePoint, Difference
from assay.records.samples import SampleBits, SampleLevels, SampleSet

Outcomes = SampleBits | SampleLevels | None


@dataclass(frozen=True, eq=False)
class SampleMatch:
    """Indices (M,) of the common samples in each set; ``note`` says how sets that differ were paired."""

    reference: NDArray[np.int64]
    candidate: NDArray[np.int64]
    note: str = ""


def match_samples(one: Outcomes, other: Outcomes, *, subjects: tuple[Subject, Subject]) -> SampleMatch | str:
    """The common samples, or the reason why they cannot be paired.

    Sets with equal digests of ids, labels and pixels pair sample by sample; predictions from a file, of which no pixels
    are known, by ids and labels alone. Two subsets of one data set (which both
    checks identify) pair on the ids they share. Images prepared in another size pair by id where data set, split and
    labels are equal.
    """
    if one is None or other is None:
        return "one of the files was written by a version that did not keep the samples"
    reference, candidate = one.samples, other.samples
    if _same(reference, candidate):
        indices = np.arange(reference.n)
        known = reference.pixels and candidate.pixels
        return SampleMatch(indices, indices, "" if known else "paired by ids and labels: no pictures to compare")
    if reference.labels == candidate.labels:
        return _match_sizes(reference, subjects)
    if reference.pixels and (reference.ids, reference.pixels) == (candidate.ids, candidate.pixels):
        return "the same images with other labels"
    return _match_parts(reference, candidate, subjects)


def _match_parts(reference: SampleSet, candidate: SampleSet, subjects: tuple[Subject, Subject]) -> SampleMatch | str:
    first, second = (subject.samples for subject in subjects)
    if first is None or second is None or not _same(first, second):
        if not (reference.pixels and candidate.pixels):
            return f"other ids or labels ({reference.n:,} samples against {candidate.n:,}), and no pictures to compare"
        each = [f"{s.n:,} of {of.data}, {of.split}" for s, of in zip((reference, candidate), subjects, strict=True)]
        return f"other samples ({' against '.join(each)})"
    common, left, right = np.intersect1d(
        reference.list_ids(), candidate.list_ids(), assume_unique=True, return_indices=True
    )
    if len(common) == 0:
        return "two subsets of the same data that have no sample in common"
    larger = max(reference.n, candidate.n)
    note = f"paired on the {len(common):,} samples that both saw, of {larger:,}" if len(common) < larger else ""
    return SampleMatch(left, right, note)


def _match_sizes(reference: SampleSet, subjects: tuple[Subject, Subject]) -> SampleMatch | str:
    a, b = subjects
    shapes = [shape for shape in (a.image_shape, b.image_shape) if shape is not None]
    if (a.data, a.split) == (b.data, b.split) and len(set(shapes)) == 2:
        indices = np.arange(reference.n)
        sizes = " against ".join(f"{width} × {height}" for _, height, width in shapes)
        return SampleMatch(indices, indices, f"paired by id, the images prepared in another size ({sizes})")
    return "the same ids and labels, but other pixels"


def _same(a: SampleSet, b: SampleSet) -> bool:
    """Digests of pixels count where both have them: predictions in a file come without pictures."""
    return (a.ids, a.labels) == (b.ids, b.labels) and (a.pixels == b.pixels or "" in {a.pixels, b.pixels})


@dataclass
class PairedChecks:
    """The measures that two checks share, not yet corrected for their number; ``vanished`` are not in the candidate."""

    differences: list[Difference] = field(default_factory=list)
    curves: list[CurveDifference] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)


def find_differences(reference: Checkup, candidate: Checkup, *, seed: int) -> PairedChecks:
    """Every measure that both checks took under the same setting; for every other, why it was left out."""
    result, subjects = PairedChecks(), (reference.subject, candidate.subject)
    others = list_accuracies(candidate)
    measures = list_accuracies(reference)
    for measure in measures:
        same_topic = [other for other in others if other.topic == measure.topic]
        same_setting = [other for other in same_topic if other.setting == measure.setting]
        other = next(iter((*same_setting, *same_topic)), None)
        if not _comparable(measure, other, result) or other is None:
            continue
        match = match_samples(measure.bits, other.bits, subjects=subjects)
        if isinstance(match, str) or measure.bits is None or other.bits is None:
            result.unpaired.append(f"{measure.name}: {match}")
            result.differences.append(independent_difference(measure.name, measure.proportion, other.proportion))
            continue
        before = np.array(measure.bits.unpack(), dtype=bool)[match.reference]
        after = np.array(other.bits.unpack(), dtype=bool)[match.candidate]
        result.differences.append(paired_difference(measure.name, before, after, note=match.note))
    topics = {measure.topic for measure in measures}
    result.left_out += [f"{other.name}: not measured in the reference" for other in others if other.topic not in topics]
    _add_curves(reference, candidate, result, seed=seed)
    operations = [operation_score(i) if i else None for i in (reference.first(Invariance), candidate.first(Invariance))]
    if operations[0] and _comparable(operations[0], operations[1], result) and operations[1]:
        _test_scores(operations[0], operations[1], reference, candidate, result, seed=seed)
    return result


def paired_difference(
    measure: str, before: NDArray[np.bool_], after: NDArray[np.bool_], *, note: str = ""
) -> Difference:
    """Whether each of the same samples (N,) was correct before and after: McNemar's exact test, Newcombe's interval."""
    from scipy.stats import binomtest

    both, lost, gained = (int(x.sum()) for x in (before & after, before & ~after, ~before & after))
    n, discordant = len(before), lost + gained
    low, high = newcombe_paired(both, lost, gained, n - both - discordant)
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
        p=float(binomtest(lost, discordant).pvalue) if discordant else 1.0,
        note=note,
    )


def independent_difference(measure: str, before: Proportion, after: Proportion) -> Difference:
    """Two accuracies on different samples: Fisher's exact test and Newcombe's interval of independent proportions."""
    from scipy.stats import fisher_exact

    low, high = newcombe(before.correct, before.n, after.correct, after.n)
    table = [[each.correct, each.n - each.correct] for each in (before, after)]
    return Difference(
        measure=measure,
        reference=before.accuracy,
        candidate=after.accuracy,
        difference=after.accuracy - before.accuracy,
        low=low,
        high=high,
        test="Fisher's exact test",
        paired=False,
        n=before.n,
        n_candidate=after.n,
        p=float(fisher_exact(table).pvalue),
    )


def _comparable(one: Measure, other: Measure | None, result: PairedChecks) -> bool:
    if other is None:
        result.left_out.append(f"{one.name}: not measured in the candidate")
        result.vanished.append(one.name)
    elif one.setting != other.setting:
        result.left_out.append(f"{one.topic}: measured differently ({one.setting} against {other.setting})")
    return other is not None and one.setting == other.setting


def _add_curves(reference: Checkup, candidate: Checkup, result: PairedChecks, *, seed: int) -> None:
    curves = {(curve.attack, curve.norm): curve for curve in candidate.each(EpsilonCurve)}
    for curve in reference.each(EpsilonCurve):
        other = curves.get((curve.attack, curve.norm))
        area = area_under_curve(curve)
        if not _comparable(area, None if other is None else area_under_curve(other), result) or other is None:
            continue
        drawn = _test_scores(area, area_under_curve(other), reference, candidate, result, seed=seed)
        if drawn is None:
            continue
        points = []
        band = drawn.band(len(curve.points)) if isinstance(drawn, Exchanged) else None
        for index, point in enumerate(curve.points):
            estimate = drawn.estimate((np.arange(len(area.scores)) > index).astype(float))
            if band is not None:
                estimate["low"], estimate["high"] = band[index]
            points.append(CurvePoint(epsilon=point.epsilon, **estimate))
        result.curves.append(
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


def _test_scores(
    one: ScoreMeasure, other: ScoreMeasure, reference: Checkup, candidate: Checkup, result: PairedChecks, *, seed: int
) -> Exchanged | Resampled | None:
    """Test the two scores and add their difference; None, and a line in ``left_out``, where that is impossible."""
    match = match_samples(one.levels, other.levels, subjects=(reference.subject, candidate.subject))
    scores, note, n = np.array(one.scores), "", (one.n, other.n)
    drawn: Exchanged | Resampled
    if not isinstance(match, str) and one.levels is not None and other.levels is not None:
        before, after = (np.minimum(each.unpack(), len(one.scores) - 1) for each in (one.levels, other.levels))
        drawn = exchange_pairs(before[match.reference], after[match.candidate], levels=len(one.scores), seed=seed)
        note, n, p = match.note, (len(match.reference), len(match.candidate)), drawn.p(scores)
    elif one.counts is not None and other.counts is not None:
        result.unpaired.append(f"{one.topic}: {match}")
        drawn = resample_independent(np.array(one.counts), np.array(other.counts), seed=seed)
        p = p_of_zero(drawn.difference(scores))
    else:
        result.left_out.append(f"{one.topic}: {match}")
        return None
    paired = isinstance(drawn, Exchanged)
    result.differences.append(
        Difference(
            measure=one.topic,
            test="sign-flip test" if paired else "bootstrap",
            paired=paired,
            n=n[0],
            n_candidate=n[1],
            p=p,
            note=note,
            **drawn.estimate(scores),
        )
    )
    return drawn
