"""A recurrence of a given spectral radius and norm: the size of its gradient over time, between its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from assay.arguments import checked
from assay.data.sequences import TEST, adding_problem
from assay.diagnostics.time import measure_time_trace
from assay.errors import OptionError
from assay.models.sequence import build_sequence_model, make_recurrent_matrix, shape_recurrence
from assay.options import Options
from assay.records.recurrence import RecurrentMatrix, TimeTrace
from assay.views.context import LIMITS, Limits, check_limit

CELLS = ("rnn-linear", "rnn", "rnn-relu")
BATCH = 32


class RecurrenceChoice(Options):
    """Spectral radius and spectral norm of W, its ``cell``, ``hidden`` units and ``length`` of the sequence."""

    radius: float = Field(default=0.9, ge=0)
    norm: float = Field(default=2.0, ge=0)
    hidden: int = Field(default=16, ge=1)
    length: int = Field(default=60, ge=2)
    cell: str = "rnn-linear"
    seed: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """The same as arguments of ``assay trace``."""
        return (
            self.cell,
            *("--task", "adding", "--length", str(self.length), "--hidden", str(self.hidden)),
            *("--radius", f"{self.radius:g}", "--norm", f"{self.norm:g}"),
            *(("--seed", str(self.seed)) if self.seed else ()),
        )


@dataclass(frozen=True)
class Recurrence:
    """The measured ``trace`` of the gradient, and its ``matrix`` with the bounds."""

    choice: RecurrenceChoice
    trace: TimeTrace
    matrix: RecurrentMatrix

    @property
    def norms(self) -> tuple[float, ...]:
        """‖∂L/∂z_{T−k}‖/‖∂L/∂z_T‖ for k = 0, 1, …, by automatic differentiation; NaN where the last is zero."""
        norms = self.trace.state(self.trace.head).norms[::-1]
        return tuple(norm / norms[0] if norms[0] > 0 else math.nan for norm in norms)


@checked
def measure_recurrence(choice: RecurrenceChoice, *, limits: Limits = LIMITS) -> Recurrence:
    """Build the recurrence and measure its gradient backwards in time, on 32 sequences of the adding problem.

    Raises :class:`OptionError` for a norm below the radius, another cell, or sizes beyond the limits.
    """
    if choice.cell not in CELLS:
        raise OptionError("cell", expected=f"one of {', '.join(CELLS)}", got=choice.cell)
    check_limit(choice.hidden, limits.hidden, where="hidden")
    check_limit(choice.length, limits.length, where="length")
    seed, hidden = choice.seed, choice.hidden
    task = adding_problem(choice.length, seed=seed)
    shape: dict[str, Any] = {**task.shape}
    model = build_sequence_model(choice.cell, **shape, hidden=hidden, seed=seed)
    shape_recurrence(model, make_recurrent_matrix(hidden, radius=choice.radius, norm=choice.norm, seed=seed))
    inputs, targets = task.draw(BATCH, TEST, 0)
    trace = measure_time_trace(
        model, inputs, lambda output: task.loss(output, targets), label=choice.cell, task=task.name, jacobians=0
    )
    return Recurrence(choice, trace, trace.matrices[0])
