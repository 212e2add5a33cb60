"""Is the model in the mode its user thinks it is in?"""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record

SIGNIFICANT = 0.05  # what a p-value must be below, after correction


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


class NormLayer(Frozen):
    """One normalisation layer with running statistics, against the data that reaches it in evaluation mode.

    ``distance`` is the mean over channels of the symmetric Kullback–Leibler divergence (nats) between the normal
    distributions N(running mean, running variance) and N(mean, variance of the data); ``mean_shift`` the root mean
    square of (data mean − running mean)/√(running variance + eps); ``log_variance_ratio`` the mean of
    |ln (data variance/running variance)|. ``oddities`` names settings that are rarely meant.
    """

    name: str
    type: str
    channels: int
    distance: float
    mean_shift: float
    log_variance_ratio: float
    batches_tracked: int | None
    oddities: tuple[str, ...] = ()


class InputConvention(Proportion):
    """Accuracy when the same pixels are handed over in another way: ``as is`` is x in [0, 1].

    Of the same samples ``gained`` became right and ``lost`` wrong; ``p_value`` is that of such a gain by chance
    (McNemar's exact test, one-sided, Holm's correction for how many ways are tried), None where it was not measured.
    """

    convention: str
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None


class PreparationVariant(Proportion):
    """Accuracy when the same pictures are prepared in another way; counts and p-value as of an input convention."""

    name: str
    gained: int
    lost: int
    p_value: float


class PreparationAudit(Record):
    """How pictures were prepared for the model, and its accuracy under the neighbouring preparations.

    ``preparation`` is how they were resized and cropped, and the normalisation that is part of the model, as far as
    either is known, in the words of ``--prepare`` (:meth:`Preparation.parse` reads it); ``source`` says where it is
    stated. ``resized`` is False for pictures that are used as they are stored. ``height`` and ``width`` are those of
    the prepared pictures. ``not_tried`` says why no variants of size and interpolation are among the ``variants``, and
    is empty where they are.
    """

    kind: Literal["preparation_audit"] = "preparation_audit"
    n: int
    height: int
    width: int
    preparation: str
    source: str
    resized: bool
    as_prepared: Proportion
    variants: tuple[PreparationVariant, ...]
    not_tried: str = ""

    @property
    def best(self) -> PreparationVariant | None:
        """The variant of the highest accuracy among those that are better beyond noise; None where none is."""
        better = [each for each in self.variants if each.p_value < SIGNIFICANT]
        return max(better, key=lambda each: each.accuracy, default=None)


class NormalizationAudit(Record):
    """Running statistics against the data, and the input scale against its alternatives.

    ``before`` is the accuracy as the model stands, ``reestimated`` with all running statistics measured anew on
    ``n_statistics`` samples: None without such layers, or where that failed, and ``not_reestimated`` says why;
    ``reestimated_p`` is the chance of such a gain without a cause (McNemar's exact test, one-sided).
    ``stem_mean`` and ``stem_std`` are of what the first parametric layer is fed; a network trained on normalised
    pixels expects about 0 and 1 there.
    """

    kind: Literal["normalization_audit"] = "normalization_audit"
    n: int
    n_statistics: int
    layers: tuple[NormLayer, ...]
    before: Proportion
    reestimated: Proportion | None
    not_reestimated: str = ""
    reestimated_p: float | None = None
    conventions: tuple[InputConvention, ...]
    stem: str
    stem_mean: float
    stem_std: float
