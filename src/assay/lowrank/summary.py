"""A factorisation as a record: spectrum, error against rank, gauge, landscape."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.data.decoding import Broken, decode_alone
from assay.data.pictures import png_base64, to_bytes
from assay.errors import DataError, OptionError
from assay.lowrank.factors import Factorization
from assay.lowrank.gauge import condition_of_scaling, sharpness_of_scaling
from assay.lowrank.matrix import Dense, Matrix
from assay.records.factorization import FactorizationReport, GaugePoint, Landscape, PictureRank, RankPoint

SCALES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


def describe_factorization(
    factorization: Factorization,
    matrix: Matrix,
    *,
    source: str,
    landscape: Landscape | None = None,
    scales: Iterable[float] = SCALES,
) -> FactorizationReport:
    """The record of a factorisation of ``matrix``, named ``source``; ``scales`` c are those of (cA, B/c)."""
    energy = factorization.certificate.energy
    ridge = factorization.certificate.ridge  # its part of the objective is no error
    norms = factorization.A.double().square().sum() + factorization.B.double().square().sum()
    squared_error = max(0.0, factorization.error - ridge * float(norms))
    relative = math.sqrt(squared_error / energy) if energy else 0.0
    return FactorizationReport(
        source=source,
        rows=factorization.A.shape[0],
        columns=factorization.B.shape[1],
        entries=matrix.work,
        rank=factorization.rank,
        rule=factorization.rule,
        missed=factorization.missed,
        method=factorization.method,
        seconds=factorization.seconds,
        passes=factorization.passes,
        predicted_seconds=factorization.predicted_seconds,
        singular_values=tuple(factorization.spectrum.tolist()),
        energy_kept=1 - relative**2,
        relative_error=relative,
        certificate=factorization.certificate,
        curve=error_curve(factorization.spectrum.double().square(), energy),
        gauge=gauge_points(factorization, scales=scales),
        landscape=landscape,
    )


def error_curve(squares: Tensor, energy: float) -> tuple[RankPoint, ...]:
    """√(1 − Σ_{i≤r} σ_i²/‖X‖²) for every r that the known σ² allow, from r = 0."""
    if energy == 0:
        return ()
    left = (energy - torch.cat([squares.new_zeros(1), squares.cumsum(0)])).clamp_min(0) / energy
    return tuple(RankPoint(rank=r, relative_error=math.sqrt(value)) for r, value in enumerate(left.tolist()))


def gauge_points(factorization: Factorization, *, scales: Iterable[float] = SCALES) -> tuple[GaugePoint, ...]:
    """Loss, sharpness and conditioning along (cA, B/c); none for a product of zero or one with a ridge.

    Raises :class:`OptionError` for a scale that is not above zero and finite.
    """
    sorted_scales = sorted(set(scales))
    for c in sorted_scales:
        if not 0 < c < math.inf:
            raise OptionError("scale", expected="a finite number above 0", got=c)
    sigma, rank = factorization.singular_values, factorization.rank
    if factorization.certificate.ridge or float(sigma[-1]) <= 0:
        return ()
    following = float(factorization.spectrum[rank]) if len(factorization.spectrum) > rank else 0.0
    first, last = float(sigma[0]), float(sigma[-1])
    return tuple(
        GaugePoint(
            scale=c,
            loss=factorization.error,
            sharpness=sharpness_of_scaling(first, c),
            condition=condition_of_scaling(first, last, following, c),
        )
        for c in sorted_scales
    )


RANKS = (1, 5, 20, 50)
LONGEST = 480  # pixels of a side in the page, so that it stays small
LARGEST = 40_000_000  # pixels


def luma(channels: Tensor) -> Matrix:
    """The luma (H, W) of a picture (C, H, W): 0.299 R + 0.587 G + 0.114 B; with fewer channels, the first."""
    if len(channels) < 3:
        return Dense(channels[0])
    red, green, blue = channels[:3]
    return Dense(0.299 * red + 0.587 * green + 0.114 * blue)


def read_channels(
    source: Path | bytes, *, name: str | None = None, longest: int | None = None, notes: list[str] | None = None
) -> Tensor:
    """Float64 (3, H, W) in [0, 1] of a picture file; transparency is laid over white. Raises :class:`DataError`.

    ``longest`` is what the longer side is shrunk to where it has more pixels. What had to be guessed of the picture, or
    was left out, is added to ``notes``.
    """
    decoded = decode_alone(source, most_pixels=LARGEST)
    if isinstance(decoded, Broken):
        raise DataError(name or str(source), expected="a picture that can be read", got=decoded.reason[:120])
    if notes is not None:
        notes += decoded[1]
    picture = Image.fromarray(decoded[0]).convert("RGB")
    if longest is not None:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).double() / 255


def rebuild_picture(channels: Tensor, *, ranks: Iterable[int]) -> tuple[PictureRank, ...]:
    """The original (as rank 0), then each of ``ranks``, every channel of (C, H, W) factorised on its own.

    ``share`` counts r(h + w + 1) numbers a channel against h·w. Pictures are shown at most 480 pixels wide or high.
    """
    _, high, wide = channels.shape
    left, sigma, right = torch.linalg.svd(channels, full_matrices=False)
    total = float(channels.square().sum())
    factorization = [_shown(channels, channels, rank=0, energy_kept=1.0, share=1.0)]
    for rank in sorted({min(r, high, wide) for r in ranks}):
        rebuilt = (left[:, :, :rank] * sigma[:, None, :rank]) @ right[:, :rank]
        energy_kept = float(sigma[:, :rank].square().sum()) / total if total else 1.0
        share = rank * (high + wide + 1) / (high * wide)
        factorization.append(_shown(rebuilt, channels, rank=rank, energy_kept=energy_kept, share=share))
    return tuple(factorization)


def _shown(picture: Tensor, original: Tensor, *, rank: int, energy_kept: float, share: float) -> PictureRank:
    pixels = to_bytes(picture.clamp(0, 1))
    squared_error = float((pixels.double() / 255 - original).square().mean())
    psnr = -10 * math.log10(squared_error) if squared_error > 0 else math.inf
    longest = max(pixels.shape[1:])
    if longest > LONGEST:
        size = (max(1, pixels.shape[2] * LONGEST // longest), max(1, pixels.shape[1] * LONGEST // longest))
        grey = len(pixels) == 1
        drawn = Image.fromarray(pixels[0].numpy() if grey else pixels.permute(1, 2, 0).numpy())
        small = torch.from_numpy(np.asarray(drawn.resize(size, Image.Resampling.LANCZOS)).copy())
        pixels = small[None] if grey else small.permute(2, 0, 1)
    return PictureRank(rank=rank, psnr=psnr, energy_kept=energy_kept, share=share, png=png_base64(pixels))
