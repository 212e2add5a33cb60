"""Accuracy again, on the pictures with and without a duplicate in the training images."""

from __future__ import annotations

from collections.abc import Sequence

from assay.arguments import checked
from assay.intervals import newcombe
from assay.records.accuracy import Proportion
from assay.records.quality import RelatedAccuracy


@checked
def split_accuracy(
    correct: Sequence[bool], related: Sequence[bool], *, against: str, attack: str = ""
) -> RelatedAccuracy:
    """The accuracy of samples that are ``correct`` or not, by whether each is ``related`` to a training image."""
    with_one = [right for right, is_related in zip(correct, related, strict=True) if is_related]
    without = [right for right, is_related in zip(correct, related, strict=True) if not is_related]
    low, high = newcombe(sum(without), len(without), sum(with_one), len(with_one))
    return RelatedAccuracy(
        against=against,
        attack=attack,
        every=Proportion.of(sum(correct), len(correct)),
        with_duplicate=Proportion.of(sum(with_one), len(with_one)),
        without_duplicate=Proportion.of(sum(without), len(without)),
        low=low,
        high=high,
    )
