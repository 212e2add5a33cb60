"""The verdict on two models: the same, different, or not to be told from so few images. Reads counts only."""

from __future__ import annotations

from collections.abc import Sequence

from assay.comparison.checkups import correct_together
from assay.comparison.statistics import holm, images_to_settle, p_of_fall
from assay.intervals import share_bounds
from assay.records.comparison import Difference
from assay.records.model_comparison import Equivalence, Sameness

MARGIN = 0.01  # of the accuracy: one percentage point
LEAST_AGREEMENT = 0.95  # of the predictions of "the same model": equal accuracies alone may be two coins
LEVEL = 0.05


def judge_equivalence(
    differences: Sequence[Difference],
    unchanged: Sequence[int],
    *,
    margin: float = MARGIN,
    least_agreement: float = LEAST_AGREEMENT,
    level: float = LEVEL,
) -> list[tuple[Difference, Equivalence]]:
    """Each candidate's difference, corrected for their number, and whether it is the same model as the reference.

    - *same*: both one-sided tests show a change of accuracy below ``margin``, and more than ``least_agreement`` of the
      predictions are shown to stay;
    - *different*: McNemar's test finds a difference that is not shown to be within the margin, or fewer predictions
      are shown to stay;
    - *cannot tell*: neither. A test that finds no difference never makes two models the same.

    ``differences`` are those of :func:`~assay.comparison.differences.paired_difference`; ``unchanged`` are, for each,
    the number of samples with the same predicted class. Holm's correction is over the candidates.
    """
    (corrected,) = correct_together([differences], level=level)
    each = [_both_tests(difference, margin=margin) for difference in differences]
    adjusted = holm([max(pair) for pair in each])
    judged = []
    for difference, (p_fall, p_rise), p, same in zip(corrected, each, adjusted, unchanged, strict=True):
        low, high = share_bounds(same, difference.n, level=level / len(differences))
        verdict, because = _decide(difference, p, low, high, least=least_agreement, level=level)
        needed = None
        if verdict == "cannot tell":
            needed = _needed(difference, same, p, margin=margin, least=least_agreement, level=level)
        equivalence = Equivalence.model_validate(
            {
                "margin": margin,
                "least_agreement": least_agreement,
                "level": level,
                "p_fall": p_fall,
                "p_rise": p_rise,
                "p": max(p_fall, p_rise),
                "adjusted": p,
                "agreement_low": low,
                "agreement_high": high,
                "verdict": verdict,
                "because": because,
                "needed": needed,
            }
        )
        judged.append((difference, equivalence))
    return judged


def _both_tests(difference: Difference, *, margin: float) -> tuple[float, float]:
    lost, gained = difference.lost or 0, difference.gained or 0
    return (
        p_of_fall(lost, gained, difference.n, margin=margin),
        p_of_fall(gained, lost, difference.n, margin=margin),
    )


def _decide(
    difference: Difference, p: float, low: float, high: float, *, least: float, level: float
) -> tuple[Sameness, str]:
    if high < least:
        return "different", "predictions"
    if p >= level and difference.adjusted < level:
        return "different", "accuracy"
    if p < level and low > least:
        return "same", ""
    return "cannot tell", "predictions" if p < level else "accuracy"


def _needed(difference: Difference, same: int, p: float, *, margin: float, least: float, level: float) -> int | None:
    """The number of images that would settle what is open: the accuracy, or the agreement, or both; None: too many."""
    n, needed = difference.n, [difference.n + 1]
    if p >= level:
        lost, gained = difference.lost or 0, difference.gained or 0
        needed.append(images_to_settle(lost, gained, n, margin=margin, level=level) or 0)
    if not share_bounds(same, n, level=level)[0] > least:
        # A changed prediction counts as lost here: whether more than 1 − least of them are.
        needed.append(images_to_settle(n - same, 0, n, margin=1 - least, level=level) or 0)
    return max(needed) if all(needed) else None
