"""The samples that a classifier was surest of, and wrong about."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


class PicturedMistake(Frozen):
    """One misclassified sample: its class, the predicted one and its confidence; ``image`` is a PNG file in base64."""

    sample_id: str
    label: str
    predicted: str
    confidence: float
    image: str


class ConfidentMistakes(Record):
    """Of the ``wrong`` ones among ``n`` samples those with the highest confidence, that first."""

    kind: Literal["confident_mistakes"] = "confident_mistakes"
    n: int
    wrong: int
    examples: tuple[PicturedMistake, ...]
