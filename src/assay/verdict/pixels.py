"""Are the pixels on the scale that a picture is on?"""

from __future__ import annotations

from assay.records.pixels import PixelRange
from assay.verdict import examples as ex
from assay.verdict.rule import Rule, RuleExamples, RuleResult, reads
from assay.wording import number

DARK = 32  # of 255: below lie masks of 0 and 1, class maps, and arrays of 0..15 that were taken for bytes
LIGHT = 255 - DARK


def _plausible_range(pixels: PixelRange) -> RuleResult | None:
    if pixels.n == 0:
        return None
    high, low = pixels.median_highest, pixels.median_lowest
    measured = f"{pixels.lowest} to {pixels.highest}; half of the images have no pixel above {number(high)}"
    doubt = ""
    if not high >= DARK:  # or not a number
        doubt = "nearly black: another scale was taken for 0 to 255"
    elif not low <= LIGHT:
        doubt = "nearly white"
        measured = f"{pixels.lowest} to {pixels.highest}; half of the images have no pixel below {number(low)}"
    elif pixels.highest - pixels.lowest < DARK:
        doubt = "nearly of one grey"
    return RuleResult("warn" if doubt else "pass", measured, high, where=doubt)


RULES = (
    Rule(
        id="A515",
        claim="Pixels use the scale from black to white",
        fault="Pixels on another scale, or nearly black or white",
        threshold="half of the images have a pixel of at least 32 of 255, and one of at most 223; the set spans 32",
        **reads(PixelRange, _plausible_range),
        why="Masks of 0 and 1, pixels of 0 to 15, and greys of 10 or 12 bits with one bright speck are read without "
        "an error and are nearly black: the model never saw such images.",
        fix="Store pixels as 0 to 255, or as floating numbers in [0, 1]; the notes of the run say which scale was "
        "taken.",
        command="assay check MODEL --data DATA",
        mend='pixels = (pixels.astype(float) / pixels.max() * 255).round().astype("uint8")',
        limits="Photographs of the night and X-rays can be dark rightly. Pixels that are off by less than a factor of "
        "eight pass; A512 compares other scales by accuracy.",
        examples=RuleExamples(
            passing=lambda: (ex.pixels(),), failing=lambda: (ex.pixels(highest=15, median_highest=15, levels=16),)
        ),
        reference="ITU-T T.81 and PNG (ISO/IEC 15948): samples of 8 bits span 0 to 255",
        on_request=True,
    ),
)
