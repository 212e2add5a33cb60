"""How gradients travel through time: through recurrences, gates and attention, against what theory says."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


class Decay(Frozen):
    """Two laws fitted by least squares to log norms at distance d = 0, 1, … from the loss.

    exponential: norm ∝ g^d, with ``rate`` g; polynomial: norm ∝ (1+d)^−p, with ``exponent`` p. ``law`` is the one of
    the smaller residual, ``flat`` where neither bends the curve by more than a factor of 2 over its whole length, and
    ``undefined`` with fewer than three finite norms above zero. ``horizon`` is −1/ln g steps: the distance over which
    the norm falls by e; infinite for g ≥ 1.
    """

    law: Literal["exponential", "polynomial", "flat", "undefined"]
    rate: float
    exponent: float
    r2_exponential: float
    r2_polynomial: float
    horizon: float
    points: int


class StateGradients(Frozen):
    """√(mean_i ‖∂ℓ_i/∂z_{t,i}‖²) for t = 0 … T−1 of one state.

    ``part`` is ``hidden`` or ``cell`` of a recurrence, ``position`` of a sequence of tokens, ``input`` of the model's
    own input. The derivative is total: all paths from z_t to the loss count. ``zero`` is the number of steps whose
    gradient is exactly zero: no path leads from them to the loss, or it underflowed on the way.
    """

    name: str
    part: Literal["hidden", "cell", "position", "input"]
    reverse: bool = False
    norms: tuple[float, ...]
    decay: Decay
    zero: int = 0
    non_finite: int = 0
    first_non_finite: int | None = None


class RecurrentMatrix(Frozen):
    """One recurrent matrix W: ρ^k ≤ ‖W^k‖₂ ≤ ‖W‖₂^k at the powers ``k``, as natural logarithms.

    ``non_normality`` is Henrici's √(‖W‖²_F − Σ|λ|²)/‖W‖_F, 0 for a normal matrix. ``peak`` is max_k ‖W^k‖₂, reached at
    ``peak_at``. ``proves`` says in words what each condition does and does not settle.
    """

    name: str
    gate: str
    size: int
    spectral_radius: float
    norm: float
    non_normality: float
    k: tuple[int, ...]
    log_lower: tuple[float, ...]
    log_power: tuple[float, ...]
    log_upper: tuple[float, ...]
    peak: float
    peak_at: int
    proves: tuple[str, ...]


class JacobianProduct(Frozen):
    """Extreme singular values of ∂z_T/∂z_t along one real trajectory, t = T−1 … 0, as natural logarithms.

    ``lyapunov`` is log σ_max/T at the whole length: the rate per step of the worst direction.
    """

    name: str
    log_largest: tuple[float, ...]
    log_smallest: tuple[float, ...]
    lyapunov: float


class GateStatistics(Frozen):
    """What one gate of one layer does over all steps, samples and units.

    ``open`` and ``shut`` are the shares above 0.9 and below 0.1; ``quantiles`` at 5, 25, 50, 75, 95 %.
    """

    name: str
    gate: Literal["input", "forget", "output", "reset", "update"]
    mean: float
    open: float
    shut: float
    quantiles: tuple[float, ...]


class TimeConstants(Frozen):
    """−1/ln f̄_j steps for each unit j, f̄_j its geometric mean forget gate (of a GRU: its update gate).

    Along the additive path alone the gradient of unit j falls by e in that many steps. Sorted.
    """

    name: str
    steps: tuple[float, ...]
    median: float


class AttentionLayer(Frozen):
    """One attention map (N, heads, T, T), averaged over samples.

    ``entropy`` is −Σ a ln a per head, in nats, over the mean of its greatest value ln(number of visible positions);
    ``distance`` the mean of |query − key|.
    """

    name: str
    heads: int
    length: int
    entropy: tuple[float, ...]
    relative_entropy: tuple[float, ...]
    distance: tuple[float, ...]


class AttentionPaths(Frozen):
    """All layers, and the rollout of Abnar & Zuidema (2020): Π ½(A_l + I), its last row by position.

    ``path`` counts the layers between the farthest two positions: 1, against the T−1 steps of a recurrence.
    """

    layers: tuple[AttentionLayer, ...]
    rollout: tuple[float, ...]
    path: int


class TimeTrace(Record):
    """Gradients of one batch through one sequence model, with what theory says about them.

    ``fused_gap`` is the largest difference between the output of the fused kernels and of the same layers stepped
    token by token, over the largest output; ``parameter_gap`` between the sum over steps of each step's parameter
    gradients and those of the fused kernels' backward pass, over the largest of them. ``head`` names the state whose
    curve stands for the model: the last layer's. ``trained`` is for how many steps it was trained just before.
    """

    kind: Literal["time_trace"] = "time_trace"
    label: str
    task: str = ""
    length: int
    n: int
    loss: float
    head: str
    states: tuple[StateGradients, ...]
    fused_gap: float | None = None
    parameter_gap: float | None = None
    matrices: tuple[RecurrentMatrix, ...] = ()
    jacobians: tuple[JacobianProduct, ...] = ()
    gates: tuple[GateStatistics, ...] = ()
    time_constants: tuple[TimeConstants, ...] = ()
    attention: AttentionPaths | None = None
    trained: int = 0

    def state(self, name: str) -> StateGradients:
        """The state of that name."""
        return next(state for state in self.states if state.name == name)


Problem = Literal["vanishing", "exploding"]


class RemedyRun(Frozen):
    """One training run.

    ``norms_before`` and ``norms_after`` are ‖∂L/∂z_t‖, t = 0 … T−1, of the last layer on the same test batch before
    and after training; ``rate_…`` and ``horizon_…`` their exponential fit. ``largest_gradient`` and
    ``median_gradient`` are of the whole parameter gradient over the steps, before clipping. ``diverged_at`` is the
    step whose loss was not finite. ``loss`` is on the test batch; infinite after a divergence.
    """

    remedy: str
    problem: Problem
    cell: str
    loss: float
    lowest_loss: float
    rate_before: float
    rate_after: float
    horizon_before: float
    horizon_after: float
    norms_before: tuple[float, ...]
    norms_after: tuple[float, ...]
    largest_gradient: float
    median_gradient: float
    diverged_at: int | None
    seconds: float


class RemedyEffect(Frozen):
    """What one remedy did against one problem, in a word and in the numbers it rests on."""

    remedy: str
    problem: Problem
    verdict: Literal["helps", "does not help", "makes it worse"]
    because: str


class RemedyComparison(Record):
    """All runs of one comparison; the first run of each problem, ``nothing``, is what the others are held against."""

    kind: Literal["remedy_comparison"] = "remedy_comparison"
    task: str
    length: int
    hidden: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    baseline: float
    runs: tuple[RemedyRun, ...]
    effects: tuple[RemedyEffect, ...]
    seconds: float
