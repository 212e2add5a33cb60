"""Accuracy, per-class recall, calibration, finite outputs, and whether there were enough samples."""

from __future__ import annotations

import math
from statistics import NormalDist

from assay.intervals import share_bounds
from assay.records.accuracy import ClassAccuracy, CleanAccuracy
from assay.records.finding import Status
from assay.verdict import examples as ex
from assay.verdict.rule import (
    NEARLY_EXACT,
    SIDE,
    Rule,
    RuleExamples,
    RuleResult,
    commonest_share,
    grade,
    grade_bounds,
    largest,
    name_some,
    near_chance,
    reads,
    tell_needed,
)
from assay.wording import percent

ABOVE_COMMONEST = 0.1  # of the way from the commonest class to every image right: what learned nothing stays below
WORST_CLASS_GAP = (0.15, 0.40)
CALIBRATION_ERROR = (0.05, 0.15)
INTERVAL_WIDTH = 0.06


def _better_than_majority(clean: CleanAccuracy) -> RuleResult | None:
    commonest = commonest_share(clean)
    if commonest is None:
        return None
    low, high = share_bounds(clean.accuracy * clean.n, clean.n, level=SIDE)
    measured = f"{percent(clean.accuracy)} ({percent(low)} to {percent(high)}) against {percent(commonest)}"
    status: Status = "cannot tell"
    if low > commonest:
        status = "pass"
    elif commonest == 1 or not high >= commonest + ABOVE_COMMONEST * (1 - commonest):
        status = "error"
    needed = tell_needed(
        status,
        distance=max(clean.accuracy - commonest, ABOVE_COMMONEST / 2 * (1 - commonest)),
        variance=max(clean.accuracy * (1 - clean.accuracy), commonest * (1 - commonest)),
        n=clean.n,
    )
    short = f"{percent(clean.accuracy)} against {percent(commonest)}"
    return RuleResult(status, measured + needed, clean.accuracy, short=short)


def _worst_class(clean: CleanAccuracy) -> RuleResult | None:
    groups = [group for group in clean.per_class if group.n > 0]
    if len(groups) < 2:
        return None
    if (chance := near_chance(clean)) is not None:
        return chance
    if clean.accuracy <= WORST_CLASS_GAP[0]:
        measured = f"an accuracy of {percent(clean.accuracy)} leaves no room for a class 15 points below it"
        return RuleResult("not run", measured, math.nan)
    # The mean varies with the class, so that the gap varies less than the class alone.
    gaps = [(_least_gap(clean, group, chosen_of=len(groups)), _most_gap(clean, group), group) for group in groups]
    limit = WORST_CLASS_GAP[0]
    status = grade_bounds(
        largest((least for least, _, _ in gaps), by=float),
        largest((most for _, most, _ in gaps), by=float),
        warn=limit,
        error=WORST_CLASS_GAP[1],
    )
    lowest = largest(groups, by=lambda group: -group.accuracy)
    measured = (
        f"worst class {lowest.name}: {percent(lowest.accuracy)} of {lowest.n}, all classes {percent(clean.accuracy)}"
    )
    measured += tell_needed(
        status,
        distance=abs(clean.accuracy - limit - lowest.accuracy),
        variance=max(lowest.accuracy * (1 - lowest.accuracy), limit * (1 - limit)),
        n=lowest.n,
        of=f"images of {lowest.name}",
        chosen_of=len(groups),
    )
    far = [g.name for least, most, g in gaps if (most if status == "cannot tell" else least) > limit]
    short = f"{lowest.name} {percent(lowest.accuracy)} against {percent(clean.accuracy)}"
    where = name_some(far or [lowest.name])
    return RuleResult(status, measured, clean.accuracy - lowest.accuracy, where=where, short=short)


def _least_gap(clean: CleanAccuracy, group: ClassAccuracy, *, chosen_of: int) -> float:
    return clean.accuracy - share_bounds(group.accuracy * group.n, group.n, level=SIDE / chosen_of)[1]


def _most_gap(clean: CleanAccuracy, group: ClassAccuracy) -> float:
    return clean.accuracy - share_bounds(group.accuracy * group.n, group.n, level=SIDE)[0]


def _calibrated(clean: CleanAccuracy) -> RuleResult | None:
    n = clean.n - clean.non_finite
    if n <= 0 or not clean.scored:
        return None
    error = clean.expected_calibration_error
    spread, excess = _calibration_noise(clean, n)
    half = NormalDist().inv_cdf(1 - NEARLY_EXACT) * spread
    status = grade_bounds(error - excess - half, error + half, warn=CALIBRATION_ERROR[0], error=CALIBRATION_ERROR[1])
    needed = tell_needed(status, distance=abs(error - CALIBRATION_ERROR[0]), variance=spread**2 * n, n=n)
    measured = f"{percent(error)}; mean confidence {percent(clean.mean_confidence)}, accuracy {percent(clean.accuracy)}"
    direction = "overconfident" if clean.mean_confidence > clean.accuracy else "underconfident"
    where = f"the model is {direction}" if status in {"warn", "error"} else ""
    short = f"{percent(clean.mean_confidence)} sure, {percent(clean.accuracy)} right"
    return RuleResult(status, measured + needed, error, where=where, short=short)


def _calibration_noise(clean: CleanAccuracy, n: int) -> tuple[float, float]:
    """The standard deviation of the calibration error, and by how much it is too large in the mean, at most.

    In a bin of n_b samples and accuracy a the difference to the confidence has the variance a(1 − a)/n_b; a is taken
    with two right and two wrong samples more (Agresti & Coull). Noise of a bin adds its mean absolute value at most.
    """
    bins = [(each.n, each.accuracy) for each in clean.calibration if each.n] or [(n, clean.accuracy)]
    smoothed = [(size, (size * accuracy + 2) / (size + 4)) for size, accuracy in bins]
    variances = [size / n * accuracy * (1 - accuracy) / n for size, accuracy in smoothed]
    excess = sum(math.sqrt(2 / math.pi * max(variance, 0.0)) for variance in variances)
    return math.sqrt(max(sum(variances), 0.0)), excess


def _finite(clean: CleanAccuracy) -> RuleResult | None:
    if clean.n == 0 or not clean.scored:
        return None
    measured = f"{clean.non_finite} of {clean.n} samples"
    return RuleResult("error" if clean.non_finite else "pass", measured, float(clean.non_finite))


def _enough_samples(clean: CleanAccuracy) -> RuleResult | None:
    if clean.n == 0:
        return None
    width = clean.high - clean.low
    measured = f"{100 * width:.1f} points wide at n = {clean.n:,}"
    return RuleResult(grade(width, warn=INTERVAL_WIDTH, error=1.0), measured, width)


RULES = (
    Rule(
        id="A101",
        claim="Better than the majority-class baseline",
        fault="No better than always answering the commonest class",
        threshold="the lower end of the 95 % interval above the share of the most frequent class (error: the upper end "
        "less than a tenth of the way from that share to 100 %)",
        **reads(CleanAccuracy, _better_than_majority),
        why="A classifier that a constant prediction matches has learned nothing usable.",
        fix="Check that class order, input range, channel order and normalisation are those of the training.",
        command="assay check MODEL --data DATA",
        mend="assay train DATA --model MODEL",
        limits="The baseline is that of the test set: where its classes are balanced, 11 % on ten classes can pass.",
        examples=RuleExamples(passing=lambda: (ex.clean(900),), failing=lambda: (ex.clean(450),)),
        reference="Clopper & Pearson 1934, Biometrika 26 (the interval)",
    ),
    Rule(
        id="A102",
        claim="No class with far lower accuracy than the mean (worst-class recall)",
        fault="A class far below the others",
        threshold="every class within 15 points of the mean at the lower end of its 95 % interval (a warning where the "
        "upper end is farther below, an error beyond 40; Bonferroni over the classes)",
        **reads(CleanAccuracy, _worst_class),
        why="A good mean hides a class that fails; users of that class meet only its accuracy.",
        fix="Look at the confusion matrix; collect or re-weight samples of that class, and check its labels.",
        command="assay check MODEL --data DATA",
        mend=(
            "weights = (1 / class_counts)[labels]\n"
            "sampler = torch.utils.data.WeightedRandomSampler(weights, len(labels))\n"
            "loader = torch.utils.data.DataLoader(train, batch_size=128, sampler=sampler)"
        ),
        limits="Of classes with few samples it cannot tell. Groups other than classes are not looked at. Not judged "
        "where the mean leaves no room for a class 15 points below it.",
        examples=RuleExamples(passing=lambda: (ex.clean(900),), failing=lambda: (ex.clean(740, dogs=250),)),
        reference="Sagawa et al. 2020, Distributionally robust neural networks, arXiv:1911.08731",
    ),
    Rule(
        id="A103",
        claim="Calibrated: confidence matches accuracy",
        fault="Miscalibrated: confidence does not match accuracy",
        threshold="expected calibration error at most 5 % at the upper end of its 95 % interval (a warning where the "
        "lower end is above, an error above 15 %)",
        **reads(CleanAccuracy, _calibrated),
        why="Thresholds, rankings and abstention by confidence assume that nine of ten samples at 90 % are correct.",
        fix="Fit one temperature on held-out data and divide the logits by it; it changes no prediction.",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --apply-fixes",
        limits="The binned error is biased upwards on few samples; the lower end allows for it. It averages over "
        "classes: a model can be calibrated in the mean and overconfident on one class, or under a shift of the data.",
        examples=RuleExamples(
            passing=lambda: (ex.clean(),),
            failing=lambda: (ex.clean(expected_calibration_error=0.08, mean_confidence=0.98),),
        ),
        reference="Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599",
        remedy="temperature",
    ),
    Rule(
        id="A104",
        claim="Finite logits: no NaN or infinity in the outputs",
        fault="NaN or infinity in the logits",
        threshold="0 samples with a NaN or an infinity in the logits",
        **reads(CleanAccuracy, _finite),
        why="A NaN compares false with everything and spreads into every mean; such samples count as wrong here.",
        fix="Find the first layer with non-finite outputs (see the gradient flow); look for division, log or overflow.",
        command="assay trace MODEL --data DATA",
        mend=(
            "for name, module in model.named_modules():\n"
            "    module.register_forward_hook(\n"
            "        lambda m, x, y, name=name: y.isfinite().all() or print(name))"
        ),
        limits="A count on the samples at hand, without an interval, in the precision of this run: float16 elsewhere "
        "can still overflow.",
        examples=RuleExamples(passing=lambda: (ex.clean(),), failing=lambda: (ex.clean(non_finite=1),)),
        reference="IEEE 754-2019, section 6.2",
    ),
    Rule(
        id="A105",
        claim="Enough test samples: the accuracy's confidence interval is narrow",
        fault="Too few test images to tell models apart",
        threshold="95 % interval of the accuracy at most 6 points wide",
        **reads(CleanAccuracy, _enough_samples),
        why="On few images two models that differ by several points cannot be told apart.",
        fix="Use more test samples: the width falls with the square root of n.",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --budget full",
        limits="The interval is for the clean accuracy and independent samples; attacks usually run on fewer images, "
        "and near-duplicates or frames of one video count as one sample.",
        examples=RuleExamples(passing=lambda: (ex.clean(900, 1000),), failing=lambda: (ex.clean(45, 50),)),
        reference="Wilson 1927, JASA 22",
    ),
)
