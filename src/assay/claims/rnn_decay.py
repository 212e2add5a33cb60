"""Does weight decay prevent vanishing gradients?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch

from assay.claims.claim import Claim, Settings
from assay.claims.rule import interval, number
from assay.data.sequences import adding_problem
from assay.diagnostics.recurrence import analyse_matrix
from assay.records.claims import Axis, Chart, Evidence, Fact, Grid, Point, Sample
from assay.records.recurrence import RemedyRun
from assay.runtime import generator
from assay.tracing.remedies import REMEDIES, Remedy, compare_remedies

DECAYS = (0.0, 0.1, 1.0, 10.0)
DECISIVE = 1.0
RATE = 3e-3
MARGIN = 2.0  # what the comparison of remedies asks of anything that shall help against vanishing
MOST = 3  # sequences; a horizon beyond, or an infinite one, counts as this


def measure(settings: Settings) -> Evidence:
    """The factor g a step and the horizon −1/ln g of a tanh RNN trained on the adding problem, by weight decay."""
    length, steps = settings.pick(tiny=12, quick=40, full=100), settings.pick(tiny=20, quick=200, full=1000)
    seeds = settings.seeds(settings.pick(tiny=2, quick=6, full=10))
    hidden = settings.pick(tiny=8, quick=32, full=64)
    remedies = [_decay(amount) for amount in DECAYS]
    found: dict[float, list[RemedyRun]] = {amount: [] for amount in DECAYS}
    for seed in seeds:
        compared = compare_remedies(
            adding_problem(length, seed=seed),
            remedies=remedies,
            hidden=hidden,
            steps=steps,
            learning_rate=RATE,
            seed=seed,
        )
        for amount, run in zip(DECAYS, compared.runs, strict=True):
            found[amount].append(run)
    norms, radii = shrink(hidden, seed=settings.seed)
    return Evidence(
        how=f"A tanh RNN of {hidden} units from PyTorch's own start, AdamW at rate {RATE:g} for {steps} steps on the "
        f"adding problem of {length} steps, {len(seeds)} seeds, weight decay {', '.join(f'{d:g}' for d in DECAYS)}: "
        "the factor g by which the gradient of the loss changes with each step back, after training.",
        facts=(
            Fact(
                name="ρ and ‖W‖ after a decay of W by a tenth",
                expected="larger, if decay shall lengthen the memory",
                got=f"{number(radii)} and {number(norms)} of before",
                holds=radii > 1 and norms > 1,
                decides=False,
            ),
        ),
        samples=tuple(
            Sample(
                name=f"horizon with decay {amount:g} over that without",
                unit="",
                values=tuple(
                    _reach(run, length) / _reach(plain, length)
                    for run, plain in zip(found[amount], found[0.0], strict=True)
                ),
                expects="increase",
                margin=MARGIN,
                scale="ratio",
                decides=amount == DECISIVE,
            )
            for amount in DECAYS[1:]
        ),
        charts=(_horizons(found), _curves(found)),
        tables=(
            Grid(
                caption="Means over the seeds",
                columns=("weight decay", "g before", "g after", "horizon after, steps", "loss, mean squared error"),
                rows=tuple(
                    (
                        f"{amount:g}",
                        fmean(run.rate_before for run in runs),
                        fmean(run.rate_after for run in runs),
                        fmean(run.horizon_after for run in runs),
                        fmean(run.loss for run in runs),
                    )
                    for amount, runs in found.items()
                ),
            ),
        ),
        notes=(
            "In a linear recurrence decay can only shorten the memory: it scales ρ(W) and ‖W‖ down, and the gradient "
            "is a product of T such matrices. It is of use against the opposite, growth beyond ρ = 1.",
            "With tanh a second effect pulls the other way: small weights keep the units where the slope is near 1. So "
            "a strong decay can leave g a little larger, and the task no better learned.",
        ),
    )


def shrink(hidden: int, *, seed: int) -> tuple[float, float]:
    """‖0.9 W‖/‖W‖ and ρ(0.9 W)/ρ(W) of a random W: decay scales both down alike."""
    W = torch.randn(hidden, hidden, generator=generator(seed, 0xDECA), dtype=torch.float64) / hidden**0.5
    before, after = analyse_matrix(W, steps=1), analyse_matrix(0.9 * W, steps=1)
    return after.norm / before.norm, after.spectral_radius / before.spectral_radius


def _reach(run: RemedyRun, length: int) -> float:
    return min(run.horizon_after, MOST * length)


def _decay(amount: float) -> Remedy:
    return replace(REMEDIES[0], name=f"weight decay {amount:g}", against=("vanishing",), weight_decay=amount)


def _horizons(found: Mapping[float, Sequence[RemedyRun]]) -> Chart:
    points = []
    for amount, runs in found.items():
        mean, low, high = interval([run.horizon_after for run in runs])
        points.append(Point(x=f"{amount:g}", y=mean, low=low, high=high))
    without, most = points[0], points[-1]
    return Chart(
        finding=f"The horizon is {without.y:.1f} steps without decay and {most.y:.1f} with a decay of {most.x}",
        mark="bars",
        x=Axis(title="weight decay", scale="names"),
        y=Axis(title="horizon −1/ln g after training, steps"),
        points=tuple(points),
        note="Interval: 95 % over the seeds.",
    )


def _curves(found: Mapping[float, Sequence[RemedyRun]]) -> Chart:
    points = []
    for amount, runs in found.items():
        norms = runs[0].norms_after[::-1]
        points += [Point(series=f"decay {amount:g}", x=t, y=norm / norms[0]) for t, norm in enumerate(norms)]
    most = len(points) // len(found) - 1
    last = {point.series: point for point in points}
    return Chart(
        finding=f"{most} steps back the gradient is {number(last['decay 0'].y)} of its size without decay, "
        f"{number(last[f'decay {DECAYS[-1]:g}'].y)} with a decay of {DECAYS[-1]:g}",
        mark="line",
        x=Axis(title="distance from the loss, steps"),
        y=Axis(title="‖∂ℓ/∂h‖ over its value at the last step", scale="log"),
        points=tuple(points),
        note="The first of the seeds.",
    )


RNN_DECAY = Claim(
    id="rnn-decay",
    sentence="Weight decay prevents vanishing gradients.",
    decides="A tanh RNN trained on the adding problem with weight decay 1 (AdamW) against none: the horizon "
    "−1/ln g, over which the gradient falls by e, must become more than twice as long.",
    would_change="Starting from an exploding or saturated network, where smaller weights bring the slopes of tanh back "
    "towards 1; decay towards the identity in place of zero.",
    references=(
        "Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, section 3.1, "
        "arXiv:1211.5063",
        "Loshchilov and Hutter 2019, Decoupled weight decay regularization, arXiv:1711.05101",
    ),
    measure=measure,
)
