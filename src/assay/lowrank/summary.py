"""A factorisation as a record: spectrum, error against rank, gauge, landscape."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from assay.errors import OptionError
from assay.lowrank.factors import Factorization
from assay.lowrank.gauge import condition_of_scaling, sharpness_of_scaling
from assay.lowrank.matrix import Matrix
from assay.records.factorization import FactorizationReport, GaugePoint, Landscape, RankPoint

SCALES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


def describe_factorization(
    found: Factorization,
    matrix: Matrix,
    *,
    source: str,
    landscape: Landscape | None = None,
    scales: Iterable[float] = SCALES,
) -> FactorizationReport:
    """Gather what was found about ``matrix`` under the name ``source``; ``scales`` c are those of (cA, B/c)."""
    energy = found.certificate.energy
    squares = found.spectrum.double().square()
    relative = math.sqrt(max(0.0, _squared_error(found)) / energy) if energy else 0.0
    return FactorizationReport(
        source=source,
        rows=found.A.shape[0],
        columns=found.B.shape[1],
        entries=matrix.work,
        rank=found.rank,
        rule=found.rule,
        method=found.method,
        seconds=found.seconds,
        passes=found.passes,
        predicted_seconds=found.predicted_seconds,
        singular_values=tuple(found.spectrum.tolist()),
        energy_kept=1 - relative**2,
        relative_error=relative,
        certificate=found.certificate,
        curve=error_curve(squares, energy),
        gauge=gauge_points(found, scales=scales),
        landscape=landscape,
    )


def error_curve(squares: Tensor, energy: float) -> tuple[RankPoint, ...]:
    """√(1 − Σ_{i≤r} σ_i²/‖X‖²) for every r that the known σ² allow, from r = 0."""
    if energy == 0:
        return ()
    left = (energy - torch.cat([squares.new_zeros(1), squares.cumsum(0)])).clamp_min(0) / energy
    return tuple(RankPoint(rank=r, relative_error=math.sqrt(value)) for r, value in enumerate(left.tolist()))


def gauge_points(found: Factorization, *, scales: Iterable[float] = SCALES) -> tuple[GaugePoint, ...]:
    """Loss, sharpness and conditioning along (cA, B/c); none for a product of zero or one with a ridge.

    Raises :class:`OptionError` for a scale that is not above zero and finite.
    """
    wanted = sorted(set(scales))
    for c in wanted:
        if not 0 < c < math.inf:
            raise OptionError("scale", expected="a finite number above 0", got=c)
    sigma = found.singular_values
    if found.certificate.ridge or float(sigma[-1]) <= 0:
        return ()
    following = float(found.spectrum[found.rank]) if len(found.spectrum) > found.rank else 0.0
    first, last = float(sigma[0]), float(sigma[-1])
    return tuple(
        GaugePoint(
            scale=c,
            loss=found.error,
            sharpness=sharpness_of_scaling(first, c),
            condition=condition_of_scaling(first, last, following, c),
        )
        for c in wanted
    )


def _squared_error(found: Factorization) -> float:
    """‖X − AB‖² without the ridge's part of the objective."""
    ridge = found.certificate.ridge
    return found.error - ridge * float(found.A.double().square().sum() + found.B.double().square().sum())
