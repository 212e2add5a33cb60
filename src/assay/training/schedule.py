"""Learning-rate schedules: pure functions from a step to the factor on the peak learning rate.

``step`` counts from 0 to ``total`` − 1. A warm-up of w steps rises linearly, (step + 1)/(w + 1), and hands over to the
schedule proper, whose progress is p = (step − w)/(total − w), from 0 towards 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from assay.errors import OptionError
from assay.training import sections

Schedule = Callable[[int], float]


def warmed(step: int, *, warmup: int) -> float | None:
    """The factor during a linear warm-up of ``warmup`` steps; None once it is over."""
    return (step + 1) / (warmup + 1) if step < warmup else None


def progress(step: int, *, total: int, warmup: int = 0) -> float:
    """Which part of the steps after the warm-up is done, in [0, 1]."""
    return min(1.0, max(0.0, (step - warmup) / max(1, total - warmup)))


def constant(step: int, *, warmup: int = 0) -> float:
    """1 after the warm-up."""
    return warmed(step, warmup=warmup) or 1.0


def cosine(step: int, *, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """final + (1 − final)·(1 + cos πp)/2 (Loshchilov & Hutter 2017, eq. 5, one cycle)."""
    p = progress(step, total=total, warmup=warmup)
    return warmed(step, warmup=warmup) or final + (1 - final) * (1 + math.cos(math.pi * p)) / 2


def linear(step: int, *, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """1 − (1 − final)·p: straight down to ``final``. With a warm-up it is the triangle."""
    return warmed(step, warmup=warmup) or 1 - (1 - final) * progress(step, total=total, warmup=warmup)


def triangular(step: int, *, total: int, peak: float = 0.2, start: float = 0.2, final: float = 0.0) -> float:
    """Up from ``start`` to 1 at the share ``peak`` of all steps, then straight down to ``final`` (Smith 2017)."""
    top = peak * total
    if step < top:
        return start + (1 - start) * step / top
    return 1 - (1 - final) * min(1.0, (step - top) / max(1e-9, total - top))


def multistep(step: int, *, total: int, milestones: Sequence[float], gamma: float = 0.1, warmup: int = 0) -> float:
    """gamma^(number of ``milestones`` passed), each given as a share of all steps."""
    passed = sum(step >= milestone * total for milestone in milestones)
    return warmed(step, warmup=warmup) or float(gamma**passed)


def build_schedule(options: sections.ScheduleOptions, *, steps: int) -> Schedule:
    """The factor on the peak learning rate at every step of a run of ``steps``.

    Raises :class:`OptionError` for a warm-up after which no step is left.
    """
    if isinstance(options, sections.TriangularSchedule):
        return partial(triangular, total=steps, peak=options.peak, start=options.start, final=options.final)
    warmup = round(options.warmup * steps)
    if warmup >= steps:
        expected = f"a share that leaves a step after the warm-up, of {steps} in all"
        raise OptionError("schedule.warmup", expected=expected, got=options.warmup)
    match options:
        case sections.ConstantSchedule():
            return partial(constant, warmup=warmup)
        case sections.MultistepSchedule(milestones=milestones, gamma=gamma):
            return partial(multistep, total=steps, milestones=milestones, gamma=gamma, warmup=warmup)
        case sections.DecaySchedule(name=name, final=final):
            return partial(cosine if name == "cosine" else linear, total=steps, warmup=warmup, final=final)
