"""Do bounded activations prevent explosion: of the states, and of the gradients?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, fact, geometric_point, one_table, ratio, relative
from assay.claims.rule import number
from assay.diagnostics.time import measure_time_trace
from assay.models.sequence import Activation, PlainRecurrence, Recurrent, identity
from assay.records.claims import Chart, ClaimEvidence, Point, Reference
from assay.runtime import generator

ACTIVATIONS: Mapping[str, Activation] = {
    "linear": identity,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
BOUNDED = ("tanh", "sigmoid")
SLOPES = {"linear": 1.0, "relu": 1.0, "tanh": 1.0, "sigmoid": 0.25}  # the steepest of each
GAIN = 2.0  # of ‖W‖ times the steepest slope


@dataclass(frozen=True)
class Run:
    """Along one trajectory: the largest |z_t| at each step, and the factor by which ‖∂ℓ/∂z_t‖ grows a step back."""

    states: tuple[float, ...]
    gradients: tuple[float, ...]
    rate: float


@register_claim(
    "rnn-bounded",
    "Bounded activations prevent explosion.",
    decides="With tanh and with the sigmoid: states must stay within 1, and the gradient must not grow with a step "
    "back, along random trajectories and at the steepest point of the activation; margin 0.",
    would_change="Asking for the states alone: then it is supported. Smaller weights, ‖W‖·max|φ'| < 1, or inputs "
    "large enough to saturate every unit, hold the gradient too.",
    references=(
        "Sompolinsky, Crisanti and Sommers 1988, Chaos in random neural networks, Physical Review Letters 61",
        "Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, arXiv:1211.5063",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """States and gradients of z_t = φ(W z_{t−1} + U x_t), W random with ‖W‖·max|φ'| = 2, for four activations."""
    hidden, steps = settings.pick(tiny=16, quick=64, full=256), settings.pick(tiny=40, quick=100, full=200)
    seeds = settings.seeds(settings.pick(tiny=3, quick=10, full=20))
    runs = {name: [run(name, hidden=hidden, steps=steps, seed=seed) for seed in seeds] for name in ACTIVATIONS}
    largest = {name: max(max(one.states) for one in each) for name, each in runs.items()}
    rates = {name: [one.rate for one in each] for name, each in runs.items()}
    exact = {name: grow_at_the_steepest_point(name, steps=20) for name in BOUNDED}
    return ClaimEvidence(
        how=f"Recurrences of {hidden} units with an orthogonal W of norm {GAIN:g} over the steepest slope of φ (so 2, "
        f"and 8 for the sigmoid), biases that centre them, small inputs, {steps} steps, {len(seeds)} seeds: the "
        "largest state, and the factor by which the gradient of a loss on the last state grows with each step back.",
        facts=(
            *(fact(f"largest state with {n}", "at most 1", number(largest[n]), largest[n] <= 1) for n in BOUNDED),
            *(
                fact(
                    f"gradient over 20 steps at the steepest point of {name}, in closed form",
                    "no growth",
                    f"{number(grown)} times",
                    grown <= 1,
                )
                for name, grown in exact.items()
            ),
        ),
        samples=tuple(
            ratio(
                f"growth of the gradient a step back, {name}", rates[name], "no increase", 1.0, decides=name in BOUNDED
            )
            for name, each in runs.items()
        ),
        charts=(_gradients(runs), _states(runs)),
        tables=one_table(
            "States and gradients, seed by seed",
            ("activation", "largest state", "smallest growth a step", "largest growth a step"),
            ((name, largest[name], min(rates[name]), max(rates[name])) for name in runs),
        ),
        notes=(
            "A bounded activation bounds the states. The gradient is a product of diag(φ')·W, and a bound on φ is none "
            "on φ': at the origin tanh is linear with slope 1, so there the product is Wᵏ.",
            "Saturation can shrink the slopes enough to hold the gradient: large inputs do that, at the price of "
            "vanishing.",
        ),
    )


def build(name: str, *, hidden: int, seed: int) -> Recurrent:
    """φ(W z + U x + b) with W = (2/max φ')·Q, Q orthogonal, and b that makes the steepest point of φ a fixed point."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = PlainRecurrence(1, hidden, activation=ACTIVATIONS[name])
        model = Recurrent(body, hidden=hidden, outputs=1, reads="last").double()
        torch.manual_seed(seed)
        nn.init.orthogonal_(body.cell.recurrent.weight, GAIN / SLOPES[name])
    with torch.no_grad():
        centre = ACTIVATIONS[name](torch.zeros(hidden, dtype=torch.float64))
        body.cell.inward.bias.copy_(-body.cell.recurrent.weight @ centre)
    return model


def run(name: str, *, hidden: int, steps: int, seed: int) -> Run:
    """One seed: random inputs of standard deviation 0.1."""
    model = build(name, hidden=hidden, seed=seed)
    inputs = 0.1 * torch.randn(8, steps, 1, generator=generator(seed, 0xB0), dtype=torch.float64)
    with torch.no_grad():
        states = model.body(inputs)[0]  # (N, T, H)
    trace = measure_time_trace(model, inputs, Tensor.mean).states[0]
    return Run(tuple(states.abs().amax(dim=(0, 2)).tolist()), trace.norms[::-1], trace.decay.rate)


def grow_at_the_steepest_point(name: str, *, steps: int) -> float:
    """‖∂ℓ/∂z‖ ``steps`` steps back over that at the last, for a trajectory that rests at φ's steepest point."""
    model = build(name, hidden=8, seed=0)
    body = model.body
    assert isinstance(body, PlainRecurrence)
    z = ACTIVATIONS[name](torch.zeros(1, 8, dtype=torch.float64)).requires_grad_(True)
    start, nothing = z, torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(steps):
        z = body.cell(nothing, z)
    back = torch.autograd.grad(model.readout(z).sum(), start)[0]
    return float(back.norm() / model.readout.weight.detach().norm())


def _mean_line(name: str, curves: Sequence[Sequence[float]]) -> list[Point]:
    """The geometric mean over the seeds at each step, with its interval."""
    steps = zip(*curves, strict=True)
    return [geometric_point((max(v, 1e-300) for v in values), x=t, series=name) for t, values in enumerate(steps)]


def _gradients(runs: Mapping[str, Sequence[Run]]) -> Chart:
    grown = {name: min(one.gradients[-1] / one.gradients[0] for one in runs[name]) for name in BOUNDED}
    return Chart(
        finding=f"Over {len(runs['tanh'][0].gradients) - 1} steps the gradient grows at least "
        f"{number(grown['tanh'])}-fold with tanh, {number(grown['sigmoid'])}-fold with the sigmoid",
        **drawn("line", x="distance from the loss, steps", y="‖∂ℓ/∂z‖ over its value at the last step", y_scale="log"),
        points=tuple(
            point
            for name, each in runs.items()
            for point in _mean_line(name, [relative(one.gradients) for one in each])
        ),
        references=(Reference(y=1.0, name="no growth"),),
    )


def _states(runs: Mapping[str, Sequence[Run]]) -> Chart:
    held = max(max(one.states) for name in BOUNDED for one in runs[name])
    return Chart(
        finding=f"The states of bounded activations stay below {held:.3g}",
        **drawn("line", x="step", y="largest |z|", y_scale="log"),
        points=tuple(point for name, each in runs.items() for point in _mean_line(name, [one.states for one in each])),
        references=(Reference(y=1.0, name="the bound of tanh and sigmoid"),),
    )
