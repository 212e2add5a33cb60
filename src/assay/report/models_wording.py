"""A comparison of models in words, the same on the page and on the terminal."""

from __future__ import annotations

from math import inf, isfinite, isnan

from assay.records.finding import Status
from assay.records.model_comparison import (
    ComparedModel,
    Flip,
    LatencyOfBoth,
    ModelComparison,
    ModelPair,
    OutputDifference,
    Sameness,
    Transfer,
)
from assay.report.comparison_wording import interval_of, p_value
from assay.wording import count, epsilon, listed, number, percent, plural, points

MOST_NAMES = 4  # of models in one sentence
TONE: dict[Sameness, Status] = {"same": "pass", "different": "error", "cannot tell": "warn"}


def headline(comparison: ModelComparison) -> str:
    """Which models are the same as the reference, which are not, and of which it cannot be told."""
    reference = comparison.reference.name
    sentences = []
    for outcome in TONE:
        names = [pair.candidate for pair in comparison.pairs if pair.equivalence.verdict == outcome]
        if names:
            several = len(names) > 1
            shown = names if len(names) <= MOST_NAMES else [*names[:MOST_NAMES], f"{len(names) - MOST_NAMES} more"]
            sentences.append(_claim(outcome, listed(shown), reference, several=several))
    return " ".join(f"{sentence}." for sentence in sentences)


def _claim(outcome: Sameness, candidate: str, reference: str, *, several: bool = False) -> str:
    verb = "are" if several else "is"
    if outcome == "cannot tell":
        return f"Whether {candidate} {verb} the same model as {reference} cannot be told"
    if outcome == "different":
        return f"{candidate} {verb} not the same model as {reference}"
    return f"{candidate} {verb} the same model as {reference} for all practical purposes"


def verdict(pair: ModelPair, comparison: ModelComparison) -> str:
    """Whether it is the same model, and on what that rests; without a full stop."""
    return f"{_claim(pair.equivalence.verdict, pair.candidate, comparison.reference.name)}: {reason(pair)}"


def margin_of(comparison: ModelComparison) -> str:
    """``1 point``, ``0.5 points``."""
    return _points(comparison.pairs[0].equivalence.margin)


def _points(margin: float) -> str:
    return f"{number(margin * 100)} {'point' if round(margin * 100, 9) == 1 else 'points'}"


def reason(pair: ModelPair) -> str:
    """On what the verdict rests, without a full stop."""
    equal, difference = pair.equivalence, pair.difference
    margin = _points(equal.margin)
    stay = f"{count(pair.agreement.correct)} of {count(pair.agreement.n)} predictions are unchanged"
    change = f"accuracy {percent(difference.reference)} to {percent(difference.candidate)}"
    if equal.verdict == "same":
        return f"its accuracy is within {margin} ({p_text(equal.adjusted)}) and {stay}"
    if equal.verdict == "different" and equal.because == "predictions":
        return f"{stay} ({change})"
    if equal.verdict == "different":
        within = f", and not shown to be within {margin}" if abs(difference.difference) < equal.margin else ""
        return f"{change}, {interval_of(difference)} points, {p_text(difference.adjusted)}{within}"
    enough = "" if equal.needed is None else f"; about {count(equal.needed)} images would settle it"
    images = "1 image does" if difference.n == 1 else f"{count(difference.n)} images do"
    if equal.because == "accuracy":
        return f"{images} not show that its accuracy is within {margin} ({p_text(equal.adjusted)}){enough}"
    return f"{images} not show {_least(pair)} ({stay}){enough}"


def _least(pair: ModelPair) -> str:
    return f"that more than {percent(pair.equivalence.least_agreement, digits=0)} of the predictions stay"


def tally(comparison: ModelComparison) -> str:
    """What the headline leaves out: on what it rests, where that is one sentence, and the remarks."""
    reasons = [_sentence(reason(comparison.pairs[0]))] if len(comparison.pairs) == 1 else []
    return " ".join((*reasons, remarks(comparison))).strip()


def remarks(comparison: ModelComparison) -> str:
    """Equal bits, and outputs that are no numbers."""
    sentences = []
    for pair in comparison.pairs:
        if pair.identical:
            sentences.append(f"All outputs of {pair.candidate} are equal to the reference's bit by bit.")
        elif not sum(pair.flipped.values()):
            sentences.append(f"No prediction of {pair.candidate} changed.")
    for model in (comparison.reference, *comparison.candidates):
        if model.non_finite:
            images = plural(model.non_finite, "image")
            sentences.append(f"{model.name} puts out numbers that are not finite for {images}, which count as wrong.")
    return " ".join(sentences)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def regressions(comparison: ModelComparison) -> list[str]:
    """What makes ``--fail-on regression`` fail: an accuracy that fell beyond noise."""
    return [
        f"{pair.candidate}: accuracy {percent(pair.difference.reference)} to {percent(pair.difference.candidate)}, "
        f"{p_text(pair.difference.adjusted)}"
        for pair in comparison.pairs
        if pair.difference.change == "worse"
    ]


def differences(comparison: ModelComparison) -> list[str]:
    """What makes ``--fail-on different`` fail: a model that is not shown to be the same."""
    return [verdict(pair, comparison) for pair in comparison.pairs if pair.equivalence.verdict != "same"]


def p_text(p: float) -> str:
    """``p = 0.013``, ``p < 0.0001``."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def flips_of(pair: ModelPair) -> str:
    """``4 right to wrong, 3 wrong to right, 1 wrong to another``; ``none``."""
    return ", ".join(f"{count(n)} {kind}" for kind, n in pair.flipped.items() if n) or "none"


def confidences(pair: ModelPair) -> str:
    """How sure both were of the predictions that changed, and of all."""
    if pair.mean_confidence_flipped is None or pair.mean_confidence is None:
        return ""
    flipped, everywhere = (
        f"{percent(before)} and {percent(after)}"
        for before, after in (pair.mean_confidence_flipped, pair.mean_confidence)
    )
    return f"Mean confidence of both where the prediction changed: {flipped}; over all images: {everywhere}."


def confidence(share: float) -> str:
    """``57.3 %``; nothing where the output is no number."""
    return percent(share) if isfinite(share) else ""


def flip_name(flip: Flip) -> str:
    """The file of the image, or its id."""
    return flip.name or f"id {flip.id}"


def largest_and_mean(difference: OutputDifference) -> str:
    """``largest 0.58 (0.92 % of their range), mean 0.079 (0.13 %)``; of probabilities the numbers alone."""
    if difference.what == "probabilities":
        return f"largest {number(difference.largest)}, mean {number(difference.mean)}"
    return (
        f"largest {number(difference.largest)} ({share_of_range(difference.largest_relative)} of their range), "
        f"mean {number(difference.mean)} ({share_of_range(difference.mean_relative)})"
    )


def share_of_range(share: float) -> str:
    """A share in per cent with three digits, however small."""
    return f"{number(share * 100)}\u00a0%"


def milliseconds(seconds: float) -> str:
    """``1.87 ms``."""
    return f"{number(seconds * 1000)}\u00a0ms"


def latency_of(latency: LatencyOfBoth) -> tuple[str, str, str]:
    """Both medians with their quartiles, and how many times as fast the candidate is."""
    both = tuple(
        f"{milliseconds(median)} ({number(low * 1000)}–{number(high * 1000)})"
        for median, low, high in (
            (latency.reference, latency.reference_low, latency.reference_high),
            (latency.candidate, latency.candidate_low, latency.candidate_high),
        )
    )
    return both[0], both[1], speed(latency)


def speed(latency: LatencyOfBoth) -> str:
    """``1.32 ×``: above 1 the candidate is faster."""
    return f"{number(latency.reference / latency.candidate)}\u00a0×" if latency.candidate else "–"


def batch_of(latency: LatencyOfBoth) -> str:
    return "1 image" if latency.batch == 1 else f"batch of {latency.batch}"


def transfer_of(transfer: Transfer) -> str:
    """``188 of 190 (96.2–99.7 %)``."""
    if not transfer.n:
        return "no image was right in both and broken"
    low, high = (f"{bound * 100:.1f}" for bound in (transfer.low, transfer.high))
    return f"{count(transfer.broken)} of {count(transfer.n)} ({low}–{high}\u00a0%)"


def attack_of(transfer: Transfer) -> str:
    """``PGD, L∞ 8/255, 10 steps, on 200 images``."""
    ball = f"L∞ {epsilon(transfer.epsilon, 'linf')}, {plural(transfer.steps, 'step')}"
    return f"{transfer.attack.upper()}, {ball}, on {plural(transfer.attacked, 'image')}"


def accuracy_of(model: ComparedModel) -> str:
    """``92.3 % (90.5–93.8)``."""
    proportion = model.accuracy
    return f"{percent(proportion.accuracy)} ({proportion.low * 100:.1f}–{proportion.high * 100:.1f})"


def drift_of(pair: ModelPair) -> str:
    """Where the layers differ most and where they first differ by a tenth of that; empty without any."""
    if not pair.layers:
        return ""
    # What is not a number is farther than any that is.
    largest = max(pair.layers, key=lambda each: inf if isnan(each.relative_error) else each.relative_error)
    if largest.relative_error == 0:
        return "No layer's output differs"
    return f"The outputs differ most at {largest.name}, by {share_of_range(largest.relative_error)}"


def shown_change(pair: ModelPair) -> str:
    """The difference of the accuracies in points, with its interval."""
    return points(pair.difference.difference)
