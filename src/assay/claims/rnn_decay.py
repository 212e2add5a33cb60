"""Does weight decay prevent vanishing gradients?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import curve_points, drawn, fact, mean_point, one_table, quotients, ratio, relative
from assay.claims.rule import number
from assay.data.sequences import adding_problem
from assay.diagnostics.recurrence import analyse_matrix
from assay.records.claims import Chart, ClaimEvidence
from assay.records.recurrence import RemedyRun
from assay.runtime import generator
from assay.tracing.remedies import REMEDIES, Remedy, compare_remedies

DECAYS = (0.0, 0.1, 1.0, 10.0)
DECISIVE = 1.0
RATE = 3e-3
MARGIN = 2.0  # what the comparison of remedies asks of anything that shall help against vanishing
SHOWN = ("rate_before", "rate_after", "horizon_after", "loss")
MOST = 3  # sequences; a horizon beyond, or an infinite one, counts as this


@register_claim(
    "rnn-decay",
    "Weight decay prevents vanishing gradients.",
    decides="A tanh RNN trained on the adding problem with weight decay 1 (AdamW) against none: the horizon "
    "−1/ln g, over which the gradient falls by e, must become more than twice as long.",
    would_change="Starting from an exploding or saturated network, where smaller weights bring the slopes of tanh back "
    "towards 1; decay towards the identity in place of zero.",
    references=(
        "Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, section 3.1, "
        "arXiv:1211.5063",
        "Loshchilov and Hutter 2019, Decoupled weight decay regularization, arXiv:1711.05101",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """The factor g a step and the horizon −1/ln g of a tanh RNN trained on the adding problem, by weight decay."""
    length, steps = settings.pick(tiny=12, quick=40, full=100), settings.pick(tiny=20, quick=200, full=1000)
    seeds = settings.seeds(settings.pick(tiny=2, quick=6, full=10))
    hidden = settings.pick(tiny=8, quick=32, full=64)
    remedies = [_decay(amount) for amount in DECAYS]
    runs_by_seed = []
    for seed in seeds:
        task = adding_problem(length, seed=seed)
        result = compare_remedies(task, remedies=remedies, hidden=hidden, steps=steps, learning_rate=RATE, seed=seed)
        runs_by_seed.append(result.runs)
    runs_by_decay = dict(zip(DECAYS, zip(*runs_by_seed, strict=True), strict=True))
    horizons = {
        amount: [min(run.horizon_after, MOST * length) for run in runs] for amount, runs in runs_by_decay.items()
    }
    norms, radii = shrink(hidden, seed=settings.seed)
    return ClaimEvidence(
        how=f"A tanh RNN of {hidden} units from PyTorch's own start, AdamW at rate {RATE:g} for {steps} steps on the "
        f"adding problem of {length} steps, {len(seeds)} seeds, weight decay {', '.join(f'{d:g}' for d in DECAYS)}: "
        "the factor g by which the gradient of the loss changes with each step back, after training.",
        facts=(
            fact(
                "ρ and ‖W‖ after a decay of W by a tenth",
                "larger, if decay shall lengthen the memory",
                f"{number(radii)} and {number(norms)} of before",
                radii > 1 and norms > 1,
                decides=False,
            ),
        ),
        samples=tuple(
            ratio(
                f"horizon with decay {amount:g} over that without",
                quotients(horizons[amount], horizons[0.0]),
                "increase",
                MARGIN,
                decides=amount == DECISIVE,
            )
            for amount in DECAYS[1:]
        ),
        charts=(_horizons(runs_by_decay), _curves(runs_by_decay)),
        tables=one_table(
            "Means over the seeds",
            ("weight decay", "g before", "g after", "horizon after, steps", "loss, mean squared error"),
            (
                (f"{amount:g}", *(fmean(getattr(run, field) for run in runs) for field in SHOWN))
                for amount, runs in runs_by_decay.items()
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


def _decay(amount: float) -> Remedy:
    return replace(REMEDIES[0], name=f"weight decay {amount:g}", against=("vanishing",), weight_decay=amount)


def _horizons(runs_by_decay: Mapping[float, Sequence[RemedyRun]]) -> Chart:
    points = [
        mean_point((run.horizon_after for run in runs), x=f"{amount:g}") for amount, runs in runs_by_decay.items()
    ]
    without, most = points[0], points[-1]
    return Chart(
        finding=f"The horizon is {without.y:.1f} steps without decay and {most.y:.1f} with a decay of {most.x}",
        **drawn("bars", x="weight decay", y="horizon −1/ln g after training, steps", x_scale="names"),
        points=tuple(points),
        note="Interval: 95 % over the seeds.",
    )


def _curves(runs_by_decay: Mapping[float, Sequence[RemedyRun]]) -> Chart:
    curves = {f"decay {amount:g}": relative(runs[0].norms_after[::-1]) for amount, runs in runs_by_decay.items()}
    without, strongest = curves["decay 0"], curves[f"decay {DECAYS[-1]:g}"]
    return Chart(
        finding=f"{len(without) - 1} steps back the gradient is {number(without[-1])} of its size without decay, "
        f"{number(strongest[-1])} with a decay of {DECAYS[-1]:g}",
        **drawn("line", x="distance from the loss, steps", y="‖∂ℓ/∂h‖ over its value at the last step", y_scale="log"),
        points=curve_points(curves),
        note="The first of the seeds.",
    )
