"""Accuracy, per-class recall, calibration, finite outputs, and whether there were enough samples."""

from __future__ import annotations

from assay.records.accuracy import CleanAccuracy
from assay.records.finding import Status
from assay.verdict import examples as ex
from assay.verdict.rule import Rule, RuleExamples, RuleResult, grade, largest, name_some, reads
from assay.wording import percent

WORST_CLASS_GAP = (0.15, 0.40)
CALIBRATION_ERROR = (0.05, 0.15)
INTERVAL_WIDTH = 0.06


def _better_than_majority(clean: CleanAccuracy) -> RuleResult | None:
    if clean.n == 0 or not clean.per_class:
        return None
    majority = max(group.n for group in clean.per_class) / clean.n
    measured = f"{percent(clean.accuracy)} ({percent(clean.low)} to {percent(clean.high)}) against {percent(majority)}"
    status: Status = "pass" if clean.low > majority else "warn" if clean.high > majority else "error"
    return RuleResult(status, measured, clean.accuracy)


def _worst_class(clean: CleanAccuracy) -> RuleResult | None:
    groups = [group for group in clean.per_class if group.n > 0]
    if len(groups) < 2:
        return None
    # By the upper end of the interval: three samples are too few to fail a class.
    gap = clean.accuracy - largest(groups, by=lambda group: -group.high).high
    behind = [group.name for group in groups if clean.accuracy - group.high > WORST_CLASS_GAP[0]]
    lowest = largest(groups, by=lambda group: -group.accuracy)
    measured = (
        f"worst class {lowest.name}: {percent(lowest.accuracy)} of {lowest.n}, all classes {percent(clean.accuracy)}"
    )
    status = grade(gap, warn=WORST_CLASS_GAP[0], error=WORST_CLASS_GAP[1])
    return RuleResult(status, measured, clean.accuracy - lowest.accuracy, where=name_some(behind or [lowest.name]))


def _calibrated(clean: CleanAccuracy) -> RuleResult | None:
    if clean.n == clean.non_finite or not clean.scored:
        return None
    error = clean.expected_calibration_error
    measured = f"{percent(error)}; mean confidence {percent(clean.mean_confidence)}, accuracy {percent(clean.accuracy)}"
    status = grade(error, warn=CALIBRATION_ERROR[0], error=CALIBRATION_ERROR[1])
    direction = "overconfident" if clean.mean_confidence > clean.accuracy else "underconfident"
    return RuleResult(status, measured, error, where="" if status == "pass" else f"the model is {direction}")


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
        threshold="the whole 95 % interval of the accuracy above the share of the most frequent class",
        **reads(CleanAccuracy, _better_than_majority),
        why="A classifier that a constant prediction matches has learned nothing usable.",
        fix="Check that class order, input range, channel order and normalisation are those of the training.",
        limits="The baseline is that of the test set: where its classes are balanced, 11 % on ten classes can pass.",
        examples=RuleExamples(passing=lambda: (ex.clean(900),), failing=lambda: (ex.clean(450),)),
        reference="Wilson 1927, JASA 22 (the interval)",
    ),
    Rule(
        id="A102",
        claim="No class with far lower accuracy than the mean (worst-class recall)",
        threshold="every class within 15 points of the mean (error beyond 40), at the upper end of its interval",
        **reads(CleanAccuracy, _worst_class),
        why="A good mean hides a class that fails; users of that class meet only its accuracy.",
        fix="Look at the confusion matrix; collect or re-weight samples of that class, and check its labels.",
        limits="Classes of few samples have wide intervals and pass. Groups other than classes are not looked at.",
        examples=RuleExamples(passing=lambda: (ex.clean(900),), failing=lambda: (ex.clean(740, dogs=250),)),
        reference="Sagawa et al. 2020, Distributionally robust neural networks, arXiv:1911.08731",
    ),
    Rule(
        id="A103",
        claim="Calibrated: confidence matches accuracy",
        threshold="expected calibration error at most 5 % (error beyond 15 %)",
        **reads(CleanAccuracy, _calibrated),
        why="Thresholds, rankings and abstention by confidence assume that nine of ten samples at 90 % are correct.",
        fix="Fit one temperature on held-out data and divide the logits by it; it changes no prediction.",
        limits="The binned error is biased upwards on few samples, and averages over classes: a model can be "
        "calibrated in the mean and overconfident on one class, or under a shift of the data.",
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
        threshold="0 samples with a NaN or an infinity in the logits",
        **reads(CleanAccuracy, _finite),
        why="A NaN compares false with everything and spreads into every mean; such samples count as wrong here.",
        fix="Find the first layer with non-finite outputs (see the gradient flow); look for division, log or overflow.",
        limits="Only the samples at hand, in the precision of this run: float16 elsewhere can still overflow.",
        examples=RuleExamples(passing=lambda: (ex.clean(),), failing=lambda: (ex.clean(non_finite=1),)),
        reference="IEEE 754-2019, section 6.2",
    ),
    Rule(
        id="A105",
        claim="Enough test samples: the accuracy's confidence interval is narrow",
        threshold="95 % interval of the accuracy at most 6 points wide",
        **reads(CleanAccuracy, _enough_samples),
        why="On few images two models that differ by several points cannot be told apart.",
        fix="Use more test samples: the width falls with the square root of n.",
        limits="The interval is for the clean accuracy and independent samples; attacks usually run on fewer images, "
        "and near-duplicates or frames of one video count as one sample.",
        examples=RuleExamples(passing=lambda: (ex.clean(900, 1000),), failing=lambda: (ex.clean(45, 50),)),
        reference="Wilson 1927, JASA 22",
    ),
)
