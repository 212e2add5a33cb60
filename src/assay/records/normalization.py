"""Do the statistics inside the model, and the pixels it is fed, fit the data?"""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record


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
    """Accuracy when the same pixels are handed over in another way: ``as is`` is x in [0, 1]."""

    convention: str


class NormalizationAudit(Record):
    """Running statistics against the data, and the input scale against its alternatives.

    ``before`` is the accuracy as the model stands, ``reestimated`` with all running statistics measured anew on
    ``n_statistics`` samples (None without such layers). ``stem_mean`` and ``stem_std`` are of what the first
    parametric layer is fed; a network trained on normalised pixels expects about 0 and 1 there.
    """

    kind: Literal["normalization_audit"] = "normalization_audit"
    n: int
    n_statistics: int
    layers: tuple[NormLayer, ...]
    before: Proportion
    reestimated: Proportion | None
    conventions: tuple[InputConvention, ...]
    stem: str
    stem_mean: float
    stem_std: float
