"""Does self-attention relate any two positions directly?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, geometric_point, one_table, quotients, ratio
from assay.claims.rule import number
from assay.diagnostics.time import measure_time_trace
from assay.models.sequence import build_sequence_model
from assay.records.claims import Chart, ClaimEvidence, Point, Reference
from assay.runtime import generator

CELLS: Mapping[str, str] = {"RNN": "rnn", "LSTM": "lstm", "attention": "transformer"}
FEATURES, BATCH = 8, 16
FLOOR = 1e-20  # of what is drawn, so that the rest can be told apart
Profiles = Mapping[str, Mapping[int, Sequence[tuple[float, ...]]]]


@register_claim(
    "attention-path",
    "Self-attention relates any two positions directly.",
    decides="The gradient of the first input over the mean of all but the last: with attention it must "
    "not fall below half when the sequence grows from the shortest to the longest, and be more than ten times that of "
    "the RNN and of the LSTM at the longest.",
    would_change="Counting the gradient itself: a single position's share of a softmax falls as 1/T. Windows, sparse "
    "patterns or a bias against distance take the direct way away.",
    references=(
        "Vaswani et al. 2017, Attention is all you need, section 4 and table 1, arXiv:1706.03762",
        "Hochreiter, Bengio, Frasconi and Schmidhuber 2001, Gradient flow in recurrent nets",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """‖∂ℓ/∂x₁‖ of a loss on the last output over the mean of the others, at growing lengths, before training."""
    lengths = settings.pick(tiny=(10, 40), quick=(10, 25, 50, 100, 200, 400), full=(10, 25, 50, 100, 200, 400))
    hidden = settings.pick(tiny=16, quick=32, full=128)
    seeds = settings.seeds(settings.pick(tiny=3, quick=5, full=10))
    profiles = {
        name: {n: [input_gradients(cell, length=n, hidden=hidden, seed=seed) for seed in seeds] for n in lengths}
        for name, cell in CELLS.items()
    }
    shares = {
        name: {length: [one[0] / _mean(one) for one in each] for length, each in by_length.items()}
        for name, by_length in profiles.items()
    }
    short, long = lengths[0], lengths[-1]
    mine = shares["attention"]
    return ClaimEvidence(
        how=f"Untrained networks of {hidden} units, {len(seeds)} seeds, sequences of {short} to {long} random inputs: "
        "the gradient of the last output with respect to the first input, over the mean gradient of all but the last. "
        "1 means that the farthest input counts as much as any.",
        samples=(
            ratio(
                f"attention, {long} steps over {short} steps", quotients(mine[long], mine[short]), "no decrease", 2.0
            ),
            *(
                ratio(
                    f"attention over {name} at {long} steps",
                    quotients(mine[long], shares[name][long]),
                    "increase",
                    10.0,
                )
                for name in ("RNN", "LSTM")
            ),
        ),
        charts=(_by_length(shares), _by_distance(profiles, long)),
        tables=one_table(
            "Gradient of the first input over the mean of all but the last; means of the seeds",
            ("length", *CELLS),
            ((length, *(fmean(shares[name][length]) for name in CELLS)) for length in lengths),
        ),
        notes=(
            "Direct is not strong: softmax shares one unit of weight among T positions, so a single far input gets "
            "about 1/T of the gradient, as every near one does. It falls with the length, not with the distance.",
            "Untrained attention is nearly uniform. Training can make it look at one position, whatever the distance.",
        ),
    )


def input_gradients(cell: str, *, length: int, hidden: int, seed: int) -> tuple[float, ...]:
    """‖∂ℓ/∂x_t‖, t = 1 … T, in float64, for ℓ the mean of the last step's outputs."""
    model = build_sequence_model(cell, features=FEATURES, outputs=4, length=length, hidden=hidden, seed=seed).double()
    inputs = torch.randn(BATCH, length, FEATURES, generator=generator(seed, 0xA77), dtype=torch.float64)
    trace = measure_time_trace(model, inputs, Tensor.mean, jacobians=0, powers=1)
    return trace.state("input").norms


def _mean(norms: Sequence[float]) -> float:
    """The last input is left out of the mean: the output reads it over the skip as well."""
    return fmean(norms[:-1])


def _by_length(shares: Mapping[str, Mapping[int, Sequence[float]]]) -> Chart:
    points = [
        geometric_point(values, x=length, series=name)
        for name, by_length in shares.items()
        for length, values in by_length.items()
    ]
    last = {point.series: point.y for point in points}
    longest = max(shares["attention"])
    return Chart(
        finding=f"At {longest} steps the farthest input keeps {number(last['attention'])} of the mean gradient in "
        f"attention, {number(last['LSTM'])} in the LSTM, {number(last['RNN'])} in the RNN",
        **drawn(
            "line",
            x="length of the sequence, steps",
            y="gradient of the first input over the mean",
            x_scale="log",
            y_scale="log",
        ),
        points=tuple(point for point in points if point.y > FLOOR),
        references=(Reference(y=1.0, name="distance makes no difference"),),
        note=f"Geometric means; band: 95 % interval over the seeds. What is below {FLOOR:g} is not shown.",
    )


def _by_distance(profiles: Profiles, length: int) -> Chart:
    step = max(1, length // 80)
    curves = {name: by_length[length][0] for name, by_length in profiles.items()}
    spread = max(curves["attention"][:-1]) / min(curves["attention"][:-1])
    return Chart(
        finding=f"Within one sequence the gradients of attention differ by a factor of {spread:.1f} at most, the last "
        "position apart",
        **drawn(
            "line", x="distance from the last input, steps", y="‖∂ℓ/∂x‖ over the mean of all inputs", y_scale="log"
        ),
        points=tuple(
            Point(series=name, x=length - 1 - t, y=curve[t] / _mean(curve))
            for name, curve in curves.items()
            for t in range(0, length, step)
            if curve[t] > FLOOR * _mean(curve)
        ),
        note=f"The first of the seeds. What is below {FLOOR:g} is not shown.",
    )
