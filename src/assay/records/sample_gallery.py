"""Samples one by one: the picture of each, what it was taken for, and what it was taken for after an attack."""

from __future__ import annotations

from typing import Literal

from assay.records.attack import Norm
from assay.records.base import Frozen, Record


class PicturedSample(Frozen):
    """One sample: its class, and the answers before and after the attack with their confidences.

    Classes are places in ``SampleGallery.classes``; −1 is an output that was not finite. ``steps`` counts the moves
    that broke it; None where nothing did.
    """

    sample_id: str
    label: int
    before: int
    confidence_before: float
    after: int
    confidence_after: float
    steps: int | None


class SampleGallery(Record):
    """Some of the ``n`` samples of one attack: ``wrong`` before it, ``broken`` by it, or ``held``.

    ``sheet`` is one PNG file in base64: the untouched pictures in rows of ``columns``, each ``tile`` (height, width)
    pixels, in the order of ``samples``. Pictures larger than a tile were made smaller; others are lossless.
    """

    kind: Literal["sample_gallery"] = "sample_gallery"
    attack: str
    norm: Norm
    epsilon: float
    n: int
    wrong: int
    broken: int
    held: int
    classes: tuple[str, ...]
    tile: tuple[int, int]
    columns: int
    sheet: str
    samples: tuple[PicturedSample, ...]
