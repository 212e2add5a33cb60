"""Does the forget gate let gradients live longer?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import curve_points, drawn, fact, mean_point, one_table, quotients, ratio, relative
from assay.claims.rule import number
from assay.data.sequences import TEST, SequenceTask, adding_problem
from assay.diagnostics.time import measure_time_trace
from assay.models.sequence import build_sequence_model, half_life, set_forget_bias
from assay.records.claims import Chart, ClaimEvidence, Reference
from assay.records.recurrence import StateGradients

RNN, BIAS_0, BIAS_1, BIAS_3, CHRONO = "RNN", "LSTM, bias 0", "LSTM, bias 1", "LSTM, bias 3", "LSTM, chrono"
MODELS: Mapping[str, Mapping[str, Any]] = {
    RNN: {"name": "rnn"},
    BIAS_0: {"name": "lstm", "forget_bias": 0.0},
    BIAS_1: {"name": "lstm", "forget_bias": 1.0},
    BIAS_3: {"name": "lstm", "forget_bias": 3.0},
    CHRONO: {"name": "lstm-chrono"},
}
MARGIN = 1.1
MOST = 3  # sequences; a horizon beyond, or an infinite one, counts as this


@register_claim(
    "lstm-forget",
    "The forget gate lets gradients live longer.",
    decides="The horizon before training: LSTMs with forget bias 1, 3 and chrono against a tanh RNN, and bias 3 "
    "against bias 0; each must be more than 1.1 times as long.",
    would_change="The bias: at 0 the gate halves the gradient every step, and an LSTM reaches hardly further than an "
    "RNN. An RNN with an orthogonal matrix reaches further than either.",
    references=(
        "Hochreiter and Schmidhuber 1997, Long short-term memory, Neural Computation 9(8)",
        "Gers, Schmidhuber and Cummins 2000, Learning to forget, Neural Computation 12(10)",
        "Jozefowicz, Zaremba and Sutskever 2015, An empirical exploration of recurrent network architectures, ICML",
        "Tallec and Ollivier 2018, Can recurrent neural networks warp time?, arXiv:1804.11188",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """The horizon −1/ln g of ‖∂ℓ/∂h_t‖ (RNN) and ‖∂ℓ/∂c_t‖ (LSTM) before training, on the adding problem."""
    length, hidden = settings.pick(tiny=40, quick=100, full=400), settings.pick(tiny=16, quick=64, full=128)
    seeds = settings.seeds(settings.pick(tiny=3, quick=10, full=20))
    task = adding_problem(length, seed=settings.seed)
    states_by_name = {
        name: [trace_state(options, task, hidden=hidden, seed=seed) for seed in seeds]
        for name, options in MODELS.items()
    }
    horizons = {name: [min(one.decay.horizon, MOST * length) for one in each] for name, each in states_by_name.items()}
    alone = {bias: rate_of_the_path_alone(bias) for bias in (0.0, 1.0, 3.0)}
    off = max(abs(rate - 1 / (1 + math.exp(-bias))) for bias, rate in alone.items())
    return ClaimEvidence(
        how=f"Untrained networks of {hidden} units on the adding problem of {length} steps, {len(seeds)} seeds: the "
        "gradient of the loss with respect to every state (of an LSTM: its cell) and the distance over which it falls "
        f"by e, from an exponential fit, counted up to {MOST} sequences.",
        facts=(
            fact(
                "largest |g − σ(b)| of the cell path alone, all other weights 0",
                "rounding, below 1e−6",
                f"{off:.0e}",
                off < 1e-6,
            ),
        ),
        samples=tuple(
            ratio(
                f"horizon of {name} over that of {base}",
                quotients(horizons[name], horizons[base]),
                "increase",
                MARGIN,
                decides=name != BIAS_0,
            )
            for name, base in ((BIAS_1, RNN), (BIAS_3, RNN), (CHRONO, RNN), (BIAS_3, BIAS_0), (BIAS_0, RNN))
        ),
        charts=(_horizons(horizons), _curves(states_by_name)),
        tables=one_table(
            "Horizons, in steps",
            ("network", "mean horizon", "least", "most"),
            ((name, fmean(v), min(v), max(v)) for name, v in horizons.items()),
        ),
        notes=(
            f"The gate lets gradients live, its bias decides whether they do: with bias b and nothing else the cell "
            f"keeps σ(b) a step, half of it for {half_life(0):.1f} steps at b = 0, {half_life(1):.1f} at 1, "
            f"{half_life(3):.0f} at 3.",
            "PyTorch starts the two forget biases near 0, which is the row without a head start.",
        ),
    )


def trace_state(options: Mapping[str, Any], task: SequenceTask, *, hidden: int, seed: int) -> StateGradients:
    """The gradients of the state that carries the memory: the cell, where there is one."""
    model = build_sequence_model(
        **options, features=task.features, outputs=task.outputs, length=task.length, hidden=hidden, seed=seed
    )
    return _memory(model, task)


def rate_of_the_path_alone(bias: float) -> float:
    """g of the cell's gradient when the forget bias is all the gates know: σ(b)."""
    task = adding_problem(20)
    model = build_sequence_model("lstm", features=2, outputs=1, length=20, hidden=4)
    lstm = model.get_submodule("body")
    assert isinstance(lstm, nn.LSTM)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
    set_forget_bias(lstm, bias)
    return _memory(model.double(), task).decay.rate


def _memory(model: nn.Module, task: SequenceTask) -> StateGradients:
    inputs, targets = task.draw(32, TEST, 0)
    dtype = next(model.parameters()).dtype

    def loss(output: Tensor) -> Tensor:
        return task.loss(output, targets.to(dtype))

    states = measure_time_trace(model, inputs.to(dtype), loss, jacobians=0, powers=1).states
    return next((state for state in states if state.part == "cell"), states[0])


def _horizons(horizons: Mapping[str, Sequence[float]]) -> Chart:
    points = {name: mean_point(values, x=name) for name, values in horizons.items()}
    longest = max(points, key=lambda name: points[name].y)
    return Chart(
        finding=f"{longest} reaches {points[longest].y:.0f} steps back, the RNN {points[RNN].y:.1f}, bias 0 "
        f"{points[BIAS_0].y:.1f}",
        **drawn("bars", x="network, before training", y="horizon −1/ln g, steps", x_scale="names"),
        points=tuple(points.values()),
        note=f"Counted up to {MOST} sequences. Interval: 95 % over the seeds.",
    )


def _curves(states_by_name: Mapping[str, Sequence[StateGradients]]) -> Chart:
    curves = {name: relative(each[0].norms[::-1]) for name, each in states_by_name.items()}
    last = {name: curve[-1] for name, curve in curves.items()}
    return Chart(
        finding=f"{len(curves[RNN]) - 1} steps back the RNN's gradient is {number(last[RNN])} of its size, that of the "
        f"LSTM with bias 3 {number(last[BIAS_3])}",
        **drawn(
            "line", x="distance from the loss, steps", y="‖∂ℓ/∂state‖ over its value at the last step", y_scale="log"
        ),
        points=curve_points(curves),
        references=(Reference(y=math.exp(-1), name="fallen by e"),),
        note="The first of the seeds.",
    )
