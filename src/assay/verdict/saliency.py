"""Is a saliency map worth anything? It has to depend on the weights, and to mark what the answer rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, pvariance

from assay.intervals import mean_bounds
from assay.records.finding import Status
from assay.records.saliency import MapMethod, SaliencyMaps
from assay.verdict import examples as ex
from assay.verdict.rule import SIDE, Rule, RuleExamples, RuleResult, reads, tell_needed
from assay.wording import number

ALIKE = 0.5  # rank correlation of two maps from which on they are much the same
FEWEST = 8  # images on which the mean of a map's numbers is judged


def _independent(maps: SaliencyMaps) -> RuleResult | None:
    if maps.n == 0:
        return None
    if maps.unrandomized is not None:
        return RuleResult("not run", maps.unrandomized, math.nan)
    redrawn = {each.method: each.randomized[-1].correlations for each in maps.maps if each.randomized}
    return _judge(maps, redrawn, threshold=ALIKE, sign=1, tell=lambda value: f"{number(value)}")


def _marks(maps: SaliencyMaps) -> RuleResult | None:
    if maps.n == 0:
        return None
    gains = {each.method: each.gains for each in maps.maps}
    return _judge(maps, gains, threshold=0.0, sign=-1, tell=lambda value: f"{value:+.3f}")


def _judge(
    maps: SaliencyMaps,
    values: Mapping[MapMethod, Sequence[float]],
    *,
    threshold: float,
    sign: int,
    tell: Callable[[float], str],
) -> RuleResult:
    """The worst status of any map; ``sign`` is 1 where the mean of its values should be small, −1 where large."""
    unmade = "".join(f"; {each.method} not run: {each.reason}" for each in maps.unmade)
    used = {name: numbers for name, numbers in values.items() if numbers}
    if not used:
        blank = "every map is constant or not finite" if maps.maps else "no map was made"
        return RuleResult("not run", f"{blank}{unmade}", math.nan)
    statuses = {name: _status(numbers, threshold, sign=sign, of=len(used)) for name, numbers in used.items()}
    order: tuple[Status, ...] = ("warn", "cannot tell", "pass")
    status = next(each for each in order if each in statuses.values())
    named = [name for name, each in statuses.items() if each == status]
    worst = max(named, key=lambda name: sign * fmean(used[name]))
    mean = fmean(used[worst])
    needed = tell_needed(
        status, distance=abs(mean - threshold), variance=pvariance(used[worst]), n=len(used[worst]), chosen_of=len(used)
    )
    means = ", ".join(f"{name} {tell(fmean(numbers))}" for name, numbers in used.items())
    counts = sorted({len(numbers) for numbers in used.values()})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    where = ", ".join(named) if status != "pass" else ""
    return RuleResult(status, f"{means} ({n}){needed}{unmade}", mean, where=where, short=f"{worst} {tell(mean)}")


def _status(numbers: Sequence[float], threshold: float, *, sign: int, of: int) -> Status:
    if len(numbers) < FEWEST:
        return "cannot tell"
    high = max(sign * bound for bound in mean_bounds(numbers, level=SIDE))
    low = min(sign * bound for bound in mean_bounds(numbers, level=SIDE / of))
    if high < sign * threshold:
        return "pass"
    return "warn" if low > sign * threshold else "cannot tell"


RULES = (
    Rule(
        id="A405",
        claim="Saliency maps that depend on the weights",
        fault="Saliency maps that random weights give as well",
        threshold="for every map a mean rank correlation below 0.5 with that of the network with permuted weights "
        "(warning where the interval lies above)",
        **reads(SaliencyMaps, _independent),
        why="A map that random weights give as well shows the picture, its edges say, and nothing that was learned.",
        fix="Do not explain answers of this network by that map; take one that changes with the weights.",
        command="assay check MODEL --data DATA",
        mend="assay look MODEL --data DATA --sample 0 --map grad-cam --out pictures",
        limits="One draw of random weights: the interval is over images. Weights are permuted within each tensor, "
        "running statistics of BatchNorm stay. That a map depends on the weights does not make it right.",
        examples=RuleExamples(
            passing=lambda: (ex.saliency_maps(correlation=0.1),), failing=lambda: (ex.saliency_maps(correlation=0.9),)
        ),
        reference="Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292",
        scored=False,
    ),
    Rule(
        id="A406",
        claim="Saliency maps that mark what the answer rests on",
        fault="Saliency maps mark the answer worse than chance",
        threshold="the answer's probability falls faster where the marked regions are blurred first than in random "
        "order: a mean difference of the areas above 0, for every map (warning where the interval lies below)",
        **reads(SaliencyMaps, _marks),
        why="Where random regions matter as much, the map points at the wrong places of the picture.",
        fix="Do not explain answers of this network by that map; take the one with the largest difference.",
        command="assay check MODEL --data DATA",
        mend="assay look MODEL --data DATA --sample 0 --map grad-cam --out pictures",
        limits="Blurred regions are no natural picture, and the network answers for what it makes of them. At most 64 "
        "regions: finer detail of a map is not judged.",
        examples=RuleExamples(
            passing=lambda: (ex.saliency_maps(gain=0.1),), failing=lambda: (ex.saliency_maps(gain=-0.1),)
        ),
        reference="Samek et al. 2017, Evaluating the visualization of what a deep neural network has learned, "
        "arXiv:1509.06321",
        scored=False,
    ),
)
