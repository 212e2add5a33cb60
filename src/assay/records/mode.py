"""Is the model in the mode its user thinks it is in?"""

from __future__ import annotations

from typing import Literal

from assay.records.base import Record


class ModeAudit(Record):
    """The model as it was handed over, and what the mode does to its output on one batch.

    ``modules_in_train_mode`` and ``modules_in_eval_mode`` name the modules whose behaviour depends on the mode
    (dropout, normalisation with running statistics; found by running each module in both modes, not by its name),
    as handed over. ``train_eval_gap`` is the largest absolute difference of the logits between the two modes over
    their range in evaluation mode, None where the model cannot run in training mode (``train_mode_error`` says why);
    ``repeat_gap`` the same between two identical evaluation passes (not 0: the model is randomised); ``batch_gap``
    between a sample alone and in its batch, in evaluation mode (far from rounding: the prediction depends on the
    company; infinite: a sample alone gives another shape or an error, as ``batch_error`` says).
    ``idle_dropout`` names dropout modules that change nothing in training mode: never called, or of probability 0.
    ``non_finite_parameters`` names parameters and buffers holding NaN or infinities; ``outputs_look_like`` says
    whether the outputs are logits, or already probabilities or log-probabilities.
    """

    kind: Literal["mode_audit"] = "mode_audit"
    training_flag: bool
    modules_in_train_mode: tuple[str, ...]
    modules_in_eval_mode: tuple[str, ...]
    frozen_parameters: int
    train_eval_gap: float | None
    repeat_gap: float
    batch_gap: float
    outputs_look_like: Literal["logits", "probabilities", "log-probabilities"]
    non_finite_parameters: tuple[str, ...] = ()
    idle_dropout: tuple[str, ...] = ()
    train_mode_error: str | None = None
    batch_error: str | None = None
