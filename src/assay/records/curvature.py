"""How curved the loss is around the weights."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Record


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
