"""The values of the pixels of a set: are they on the scale that a picture is on?"""

from __future__ import annotations

from typing import Literal

from assay.records.base import Record


class PixelRange(Record):
    """The pixels of ``n`` images as bytes: 0 is black and 255 white.

    ``lowest`` and ``highest`` are those of the whole set, and ``levels`` counts the different values in it. Half of the
    images have no pixel above ``median_highest``, and half none below ``median_lowest``.
    """

    kind: Literal["pixel_range"] = "pixel_range"
    n: int
    lowest: int
    highest: int
    levels: int
    median_lowest: float
    median_highest: float
