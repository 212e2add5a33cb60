"""Does the norm of the recurrent matrix decide between vanishing and exploding?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import counted, drawn, fact, one_table, relative
from assay.claims.rule import number
from assay.diagnostics.recurrence import analyse_matrix
from assay.diagnostics.time import measure_time_trace
from assay.models.sequence import PlainRecurrence, Recurrent, build_sequence_model
from assay.records.claims import Chart, ClaimEvidence, Point, Reference
from assay.records.recurrence import RecurrentMatrix
from assay.runtime import generator

VANISHED, EXPLODED = 1e-3, 1e3  # of the gradient at the last step, at the greatest distance
SHOWN, FLOOR = 150, 1e-12  # steps, and the least that is drawn
JORDAN = "[[0.9, 10], [0, 0.9]]"


@dataclass(frozen=True)
class Measured:
    """One matrix in theory, and ‖∂ℓ/∂z‖ at distance 0, 1, … from the loss relative to distance 0."""

    theory: RecurrentMatrix
    gradients: tuple[float, ...]


@register_claim(
    "rnn-norm",
    "In a recurrence, ‖W‖ < 1 vanishes and ‖W‖ > 1 explodes.",
    decides="Linear recurrences with normal and non-normal W: every one with ‖W‖ < 1 must lose its gradient (to below "
    "a thousandth), every one with ‖W‖ > 1 must have it explode (beyond a thousandfold).",
    would_change="Reading the norm as the spectral radius ρ(W), or allowing only normal matrices, for which ρ = ‖W‖: "
    "then both halves hold. With tanh the second half fails even so, for its slopes are below 1.",
    references=(
        "Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, arXiv:1211.5063",
        "Trefethen and Embree 2005, Spectra and pseudospectra, Princeton University Press",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """ρ(W), ‖W‖₂, ‖Wᵏ‖₂ and measured gradients of zₜ = W zₜ₋₁ + U xₜ for normal and non-normal W."""
    hidden = settings.pick(tiny=8, quick=32, full=128)
    distance = settings.pick(tiny=200, quick=400, full=1000)
    measured = {
        name: Measured(
            analyse_matrix(W, steps=distance, name=name), measure_gradients(W, distance=distance, seed=settings.seed)
        )
        for name, W in draw_matrices(hidden, seed=settings.seed).items()
    }
    below = [one for one in measured.values() if one.theory.norm < 1]
    above = [one for one in measured.values() if one.theory.norm > 1]
    vanish = sum(_vanishes(one) for one in below)
    explode = sum(one.gradients[-1] > EXPLODED for one in above)
    by_radius = sum((one.theory.spectral_radius < 1) == _vanishes(one) for one in measured.values())
    within = max(_excess(one) for one in measured.values())
    return ClaimEvidence(
        how=f"Linear recurrences zₜ = W zₜ₋₁ + U xₜ with {len(measured)} matrices W ({hidden} units, and one of 2): "
        f"the largest singular value of Wᵏ and the gradient of a loss on the last state, up to k = {distance} steps.",
        facts=(
            counted(f"matrices with ‖W‖ < 1 whose gradient falls below {VANISHED:g} of its size", vanish, len(below)),
            counted(f"matrices with ‖W‖ > 1 whose gradient grows beyond {EXPLODED:g} times", explode, len(above)),
            counted(
                "matrices for which ρ(W) < 1 tells vanishing from not vanishing",
                by_radius,
                len(measured),
                decides=False,
            ),
            fact(
                "largest measured gradient over its bound ‖Wᵏ‖",
                "at most 1",
                number(within),
                within <= 1 + 1e-6,
                decides=False,
            ),
        ),
        charts=(_powers({name: one.theory for name, one in measured.items()}), _gradients(measured)),
        tables=one_table(
            "What the norm says, what the radius says, and what happens",
            ("W", "‖W‖", "ρ(W)", "largest ‖Wᵏ‖", "at k", f"gradient after {distance} steps"),
            (
                (name, of.norm, of.spectral_radius, of.peak, of.peak_at, measured[name].gradients[-1])
                for name, of in ((name, one.theory) for name, one in measured.items())
            ),
        ),
        notes=(
            "The first half is a theorem: ‖Wᵏ‖ ≤ ‖W‖ᵏ. The second is not: ‖W‖ > 1 is necessary for exploding and not "
            "sufficient. What decides is ρ(W), for ρᵏ ≤ ‖Wᵏ‖ and Wᵏ → 0 exactly when ρ < 1.",
            "Where ρ < 1 < ‖W‖, which takes a non-normal W, gradients first grow and then vanish.",
        ),
    )


def draw_matrices(hidden: int, *, seed: int) -> Mapping[str, Tensor]:
    """Normal and non-normal W (H, H) float64 on both sides of ‖W‖ = 1, and the 2×2 Jordan block."""
    draws = generator(seed, 0x20)
    orthogonal = torch.linalg.qr(torch.randn(hidden, hidden, generator=draws, dtype=torch.float64)).Q
    gaussian = torch.randn(hidden, hidden, generator=draws, dtype=torch.float64)
    norm = torch.linalg.matrix_norm(gaussian, 2)
    radius = torch.linalg.eigvals(gaussian).abs().max()
    own = build_sequence_model("rnn", features=1, outputs=1, length=1, hidden=hidden, seed=seed)
    return {
        "orthogonal × 0.9": 0.9 * orthogonal,
        "Gaussian, ‖W‖ = 0.9": 0.9 * gaussian / norm,
        "orthogonal × 1.1": 1.1 * orthogonal,
        "Gaussian, ρ = 0.9": 0.9 * gaussian / radius,
        JORDAN: torch.tensor([[0.9, 10.0], [0.0, 0.9]], dtype=torch.float64),
        "PyTorch's own start": own.get_parameter("body.weight_hh_l0").detach().double(),
    }


def measure_gradients(W: Tensor, *, distance: int, seed: int) -> tuple[float, ...]:
    """‖∂ℓ/∂z‖ at distance 0 … ``distance`` from the loss over that at distance 0, on random inputs, in float64."""
    hidden = len(W)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = PlainRecurrence(1, hidden)
        model = Recurrent(body, hidden=hidden, outputs=1, reads="last").double()
    body.cell.recurrent.weight = nn.Parameter(W.clone())
    inputs = torch.rand(4, distance + 1, 1, generator=generator(seed, 0x21), dtype=torch.float64)
    return tuple(relative(measure_time_trace(model, inputs, Tensor.mean).states[0].norms[::-1]))


def _vanishes(one: Measured) -> bool:
    return one.gradients[-1] < VANISHED


def _excess(one: Measured) -> float:
    """The largest ratio of a gradient to ‖Wᵏ‖, by logarithms: either may be too small for a number."""
    bounds = zip(one.theory.k, one.theory.log_power, strict=True)
    return math.exp(max(math.log(one.gradients[k]) - log for k, log in bounds if one.gradients[k] > 0))


def _powers(measured: Mapping[str, RecurrentMatrix]) -> Chart:
    jordan = measured[JORDAN]
    return Chart(
        finding=f"‖W‖ = {jordan.norm:.1f}, yet ‖Wᵏ‖ peaks at {jordan.peak:.1f} after {jordan.peak_at} steps and "
        "vanishes: ρ decides",
        **drawn("line", x="power k, steps", y="‖Wᵏ‖₂", y_scale="log"),
        points=tuple(
            Point(series=name, x=k, y=math.exp(log))
            for name, one in measured.items()
            for k, log in zip(one.k, one.log_power, strict=True)
            if k <= SHOWN and log > math.log(FLOOR)
        ),
        references=(Reference(y=1.0, name="neither"),),
        note=f"What is below {FLOOR:g} is not shown.",
    )


def _gradients(measured: Mapping[str, Measured]) -> Chart:
    wrong = [name for name, one in measured.items() if one.theory.norm > 1 and _vanishes(one)]
    return Chart(
        finding=f"The gradients of {len(wrong)} matrices with ‖W‖ > 1 vanish",
        **drawn("line", x="distance from the loss, steps", y="‖∂ℓ/∂z‖ over its value at the last step", y_scale="log"),
        points=tuple(
            Point(series=name, x=k, y=one.gradients[k])
            for name, one in measured.items()
            for k in range(0, min(SHOWN + 1, len(one.gradients)), 3)
            if one.gradients[k] > FLOOR
        ),
        references=(Reference(y=1.0, name="neither"),),
        note=f"What is below {FLOOR:g} is not shown.",
    )
