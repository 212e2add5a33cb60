"""Fixes on the terminal: a line for each number that was measured again."""

from __future__ import annotations

from collections.abc import Iterator

from assay.records.checkup import Checkup
from assay.records.fixes import AppliedFix
from assay.report.comparison_wording import ARROW
from assay.report.wording import number, percent


def tell_fixes(checkup: Checkup) -> Iterator[tuple[str, str]]:
    """(style, line) pairs: each fix with what was done, the numbers before and after, and why one was not applied."""
    fixes = list(checkup.each(AppliedFix))
    for fix in fixes:
        if fix.refused:
            yield "yellow", f"{fix.rule} not fixed ({fix.fix}): {fix.refused}"
            continue
        yield "bold", f"{fix.rule} fixed ({fix.fix}): {fix.applied}"
        yield "", f"  before: {fix.measured_before}"
        yield "", f"  after: {fix.measured_after}"
        for effect in fix.effects:
            moved = "" if effect.change == "no change beyond noise" else f" {ARROW[effect.change]}"
            values = f"{percent(effect.reference)} → {percent(effect.candidate)}{moved}"
            yield "", f"  {effect.measure.partition(',')[0]}: {values}"
        for reading in fix.readings:
            say = percent if reading.unit == "share" else number
            yield "", f"  {reading.name}: {say(reading.before)} → {say(reading.after)}"
    weights = next((fix.weights for fix in fixes if fix.weights), "")
    if weights:
        yield "", f"Fixed weights: {weights}, beside the report"
