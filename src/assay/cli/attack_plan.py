"""``assay attack --within``: how many images the attack and what is measured beside it get of a wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.cli.within import seconds_since_start
from assay.records.budget import half_width
from assay.report.plan_wording import about, points
from assay.report.terminal.layout import print_line
from assay.runtime.allocation import SLACK, TRIAL_SHARE, TRIALS, Cost, Share, allocate, measure_cost
from assay.wording import count, duration

if TYPE_CHECKING:
    from rich.console import Console

ATTACK, CURVE, SANITY = "attack", "accuracy against epsilon", "attack sanity"
_WEIGHTS = {ATTACK: 1.0, CURVE: 0.5, SANITY: 0.1}  # of the evidence
_LEAST = {ATTACK: 1, CURVE: 32, SANITY: 16}  # images below which it is worth nothing; the attack was asked for


@dataclass(frozen=True)
class AttackPlan:
    """Of the wall time ``within``, in seconds: the cost of each measurement, and the most images that it takes."""

    within: float
    costs: Mapping[str, Cost]
    most: Mapping[str, int]

    def give(self) -> dict[str, int]:
        """Images for each, such that they fit into what is left of the time; 0 for one that does not fit."""
        shares = [
            Share(
                name,
                cost,
                _WEIGHTS[name],
                least=min(_LEAST[name], self.most[name]),
                most=self.most[name],
                required=name == ATTACK,
            )
            for name, cost in self.costs.items()
        ]
        return allocate(shares, self.within - seconds_since_start(), slack=SLACK * self.within)

    def give_attack(self, run: Callable[[int], object]) -> int:
        """Images for the attack once all else was measured, by trials that grow to an eighth of the time left."""
        n, cost = TRIALS[1], self.costs[ATTACK]
        while n < self.most[ATTACK]:
            left = self.within - seconds_since_start()
            if cost.seconds(n) > left / 4:
                break
            started = time.perf_counter()
            run(n)
            took = time.perf_counter() - started
            cost = Cost(each=took / n)
            if took > left / 8:
                break
            n *= 4
        return AttackPlan(self.within, {ATTACK: cost}, self.most).give()[ATTACK]


def plan_attack(runs: Mapping[str, Callable[[int], object]], most: Mapping[str, int], *, within: float) -> AttackPlan:
    """Time each of ``runs`` on a few images. What the attack raises is passed on; the others tell it themselves."""
    share = TRIAL_SHARE * within / len(runs)
    costs = {}
    for name, run in runs.items():
        try:
            costs[name] = measure_cost(run, most=most[name], seconds=share)
        except Exception:
            if name == ATTACK:
                raise
            costs[name] = Cost()
    return AttackPlan(within, costs, most)


def print_attack_plan(plan: AttackPlan, given: Mapping[str, int], console: Console) -> None:
    """A line for each measurement: images, time, and the width of its interval beside that of all images."""
    print_line(console, f"within {duration(plan.within)}:", "bold")
    for name, n in given.items():
        if n == 0:
            print_line(console, f"  {name}: left out, and the exit code is 4", "yellow")
            continue
        most = plan.most[name]
        fewer = f" instead of {points(half_width(most))}" if n < most else ""
        images = f"{count(n)} of {count(most)} images" if n < most else f"{count(n)} images"
        line = f"  {name}: {images}, about {about(plan.costs[name].seconds(n))}, {points(half_width(n))} points{fewer}"
        print_line(console, line, "dim")
