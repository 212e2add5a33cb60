"""What a verb prints before it starts: how long it will take, and what each stage is given of a wall time."""

from __future__ import annotations

from rich.console import Console

from assay.records.budget import CheckPlan, PlannedStage
from assay.report.plan_wording import about, describe_plan, points
from assay.report.terminal.layout import print_items, print_line
from assay.wording import count


def print_plan(plan: CheckPlan, console: Console) -> None:
    """One line; where a wall time was given, also the images, the time and the interval of every stage."""
    if plan.within is None:
        print_line(console, describe_plan(plan), "dim")
        return
    steps = f"PGD of {plan.budget.steps} steps" + (
        f" and {plan.budget.restarts} restarts" if plan.budget.restarts > 1 else ""
    )
    print_line(console, f"{plan.budget.name}: {about(plan.seconds)} planned, {steps}", "bold")
    chosen = [stage for stage in plan.stages if stage.samples is not None]
    others = sum(stage.seconds for stage in plan.stages if stage.samples is None)
    rows = (
        *chosen,
        PlannedStage(name="other stages", seconds=others),
        PlannedStage(name="opening, timing, drawing the page", seconds=plan.before + plan.reserved),
    )
    columns = {
        "stage": lambda stage: stage.name,
        ">images": _images,
        ">time": lambda stage: "–" if stage.samples == 0 else about(stage.seconds),
        ">95 % interval": lambda stage: points(stage.half_width),
        ">of standard": lambda stage: points(stage.usual_half_width),
    }
    print_items(console, rows, columns)
    if any(stage.samples == 0 for stage in chosen):
        print_line(console, "What has no time is left out, and the check ends with exit code 4.", "yellow")


def _images(stage: PlannedStage) -> str:
    if stage.samples is None:
        return ""
    images = "left out" if stage.samples == 0 else count(stage.samples)
    fewer = stage.usual is not None and stage.samples < stage.usual
    return f"{images} of {count(stage.usual)}" if fewer and stage.usual is not None and stage.samples else images
