"""The plan of a check in words: how long it takes, and what a shorter time costs."""

from __future__ import annotations

from collections.abc import Iterator

from assay.records.budget import CheckPlan, PlannedStage
from assay.wording import count, duration, plural

_SHOWN = 3  # stages of which a sentence names the time


def describe_plan(plan: CheckPlan) -> str:
    """``standard: about 6m (attacks 3m, …)``; with a wall time, what of it is no stage as well."""
    longest = sorted(plan.stages, key=lambda stage: -stage.seconds)[:_SHOWN]
    parts = [f"{stage.name} {about(stage.seconds)}" for stage in longest if stage.seconds >= 1]
    named = f" ({', '.join(parts)})" if parts else ""
    return f"{plan.budget.name}: about {about(plan.seconds)}{named}"


def about(seconds: float) -> str:
    """A length of time in two digits: ``4m50s``, ``12s``."""
    step = 1 if seconds < 20 else 5 if seconds < 120 else 10 if seconds < 600 else 60
    return duration(max(1, round(seconds / step) * step))


def points(half_width: float | None) -> str:
    """The half-width of an interval in percentage points: ``±3.1``."""
    return "" if half_width is None else f"±{100 * half_width:.1f}"


def describe_costs(plan: CheckPlan) -> Iterator[str]:
    """A sentence for each stage that takes fewer images than the standard budget gives it, or none."""
    for stage in plan.stages:
        if stage.samples is None or stage.usual is None or stage.samples >= stage.usual:
            continue
        yield f"{stage.name}: {_fewer(stage)}"


def _fewer(stage: PlannedStage) -> str:
    if not stage.samples:
        return "left out"
    images = f"{count(stage.samples)} of {plural(stage.usual or 0, 'image')}"
    if stage.half_width is None:
        return images
    return f"{images}, {points(stage.half_width)} points instead of {points(stage.usual_half_width)}"
