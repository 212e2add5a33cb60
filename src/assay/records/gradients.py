"""Where gradients vanish, explode, and what they look at."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


class LayerGradient(Frozen):
    """One parametric layer, in forward order (``depth`` counts from 0 at the input).

    ``weight_gradient`` is ‖∂L/∂W‖₂ of its weight, ``relative_gradient`` that over ‖W‖₂; ``activation`` and
    ``activation_gradient`` are root mean squares of the layer's output and of ∂L/∂output (of the mean loss, times the
    batch size, so that they do not shrink with the batch). ``gradient_per_sample`` is √(mean over samples of
    ‖∂ℓ_i/∂output_i‖²₂), the length that products of Jacobians speak of. ``dead`` is the share of output units
    (channels) that are zero, after the activation that follows, for every sample; None where no ReLU follows.
    ``calls`` is above 1 for a shared module, whose numbers are over all its calls. ``reached`` is False where no
    gradient arrives: the path from here to the loss is cut. ``non_finite`` counts NaN and infinite entries of the
    output, of its gradient and of the layer's parameters and their gradients.
    """

    name: str
    type: str
    depth: int
    parameters: int
    weight_norm: float
    weight_gradient: float
    relative_gradient: float
    activation: float
    activation_gradient: float
    gradient_per_sample: float = 0.0
    dead: float | None = None
    calls: int = 1
    reached: bool = True
    non_finite: int = 0


class GradientFlow(Record):
    """Gradient norms over depth on one labelled batch, in evaluation mode.

    ``decay_per_layer`` is the geometric factor g by which ``gradient_per_sample`` changes a layer nearer to the
    input, fitted by least squares to its logarithm: g < 1 vanishes, g > 1 explodes. ``first_non_finite`` names the
    first layer, in the order of the computation, with a NaN or an infinity, and where in it.
    ``unused`` names parameters that take no part in the loss.
    """

    kind: Literal["gradient_flow"] = "gradient_flow"
    layers: tuple[LayerGradient, ...]
    n: int
    loss: float
    decay_per_layer: float | None
    first_non_finite: str | None = None
    unused: tuple[str, ...] = ()


class InputGradientSample(Frozen):
    """One image, and |∂L/∂x| summed over its channels and scaled to its own maximum: PNG files in base64."""

    sample_id: str
    label: str
    prediction: str
    confidence: float
    correct: bool
    gradient_norm: float
    image: str
    gradient_map: str


class InputGradients(Record):
    """‖∂L/∂x‖₂ per sample (nats per unit of pixel range), split by whether the model is right.

    ``quantiles_right`` and ``quantiles_wrong`` are the 5, 25, 50, 75 and 95 % quantiles of the finite norms.
    ``concentration`` is the mean share of the squared gradient held by the 10 % of pixels that hold most of it.
    ``zero`` counts samples whose gradient is exactly zero (a masked gradient, or a loss that underflowed).
    """

    kind: Literal["input_gradients"] = "input_gradients"
    n_right: int
    n_wrong: int
    median_norm_right: float | None
    median_norm_wrong: float | None
    quantiles_right: tuple[float, ...]
    quantiles_wrong: tuple[float, ...]
    concentration: float
    zero: int
    non_finite: int
    samples: tuple[InputGradientSample, ...]


class Curvature(Record):
    """The Hessian of the mean loss on ``n`` samples, in evaluation mode.

    ``eigenvalues`` are the largest by Lanczos, in descending order; ``residual`` is ‖Hv − λv‖₂ of the first pair, a
    bound on its error; ``smallest`` is the lowest Ritz value: below 0, the loss is not convex here. ``trace`` is
    Hutchinson's estimate with its standard error. Gradient descent on the local quadratic is stable for a learning
    below 2/λmax = ``critical_learning_rate``; ``learning_rate`` is the one in use, where it was told.
    """

    kind: Literal["curvature"] = "curvature"
    n: int
    parameters: int
    eigenvalues: tuple[float, ...]
    smallest: float
    residual: float
    iterations: int
    trace: float
    trace_error: float
    critical_learning_rate: float
    learning_rate: float | None = None


class LayerTrace(Frozen):
    """One parametric layer at the sampled steps.

    ``activation`` is the root mean square of its output, ``gradient`` ‖∂L/∂output‖₂ over the batch, ``weight_gradient``
    ‖∂L/∂θ‖₂ of its own parameters before clipping, ``update`` ‖Δθ‖₂/‖θ‖₂ of the optimizer's step. ``dead`` is the share
    of its channels that the activation after it leaves at zero for the whole batch, ``saturated`` of the entries
    beyond 0.99 of a tanh or sigmoid; both empty where no such module follows. NaN and infinities stay in place.
    """

    name: str
    type: str
    depth: int
    activation: tuple[float, ...]
    gradient: tuple[float, ...]
    weight_gradient: tuple[float, ...]
    update: tuple[float, ...]
    dead: tuple[float, ...] = ()
    saturated: tuple[float, ...] = ()


class DepthTrace(Record):
    """What the hooks saw at ``steps`` (counted from 1) of ``total`` training steps.

    ``first_non_finite`` names the first layer, at the first sampled step, whose numbers are not finite;
    ``non_finite`` counts such numbers. ``overhead`` is the median time of a sampled step over that of the others, less
    one, and ``average_overhead`` that spread over all steps; None with fewer than three steps of either kind.
    """

    kind: Literal["depth_trace"] = "depth_trace"
    label: str
    total: int
    steps: tuple[int, ...]
    layers: tuple[LayerTrace, ...]
    non_finite: int = 0
    first_non_finite: str | None = None
    overhead: float | None = None
    average_overhead: float | None = None
