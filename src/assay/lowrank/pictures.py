"""A picture as a matrix, and what is left of it at a few ranks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from assay.data.pictures import png_base64, to_bytes
from assay.errors import DataError
from assay.lowrank.matrix import Dense, Matrix
from assay.records.factorization import PictureRank

RANKS = (1, 5, 20, 50)
LONGEST = 480  # pixels of a side in the page, so that it stays small
LARGEST = 40_000_000  # pixels


def read_luma(path: Path) -> Matrix:
    """The picture's luma in [0, 1], (height, width), 0.299 R + 0.587 G + 0.114 B. Raises :class:`DataError`."""
    red, green, blue = read_channels(path)
    return Dense(0.299 * red + 0.587 * green + 0.114 * blue)


def read_channels(path: Path) -> Tensor:
    """Float64 (3, H, W) in [0, 1]; transparency is laid over white. Raises :class:`DataError`."""
    try:
        with Image.open(path) as file:
            if file.width * file.height > LARGEST:
                raise DataError(str(path), expected=f"at most {LARGEST:,} pixels", got=f"{file.width} × {file.height}")
            layered = file.convert("RGBA")
            white = Image.new("RGBA", layered.size, "white")
            pixels = np.asarray(Image.alpha_composite(white, layered).convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise DataError(
            str(path), expected="a picture that can be read", got=" ".join(str(error).split())[:120]
        ) from None
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).double() / 255


def rebuild_picture(path: Path, *, extra: int) -> tuple[PictureRank, ...]:
    """The original (as rank 0), then rank 1, 5, 20, 50 and ``extra``, each channel factorised on its own.

    ``share`` counts r(h + w + 1) numbers a channel against h·w. Pictures are shown at most 480 pixels wide or high.
    """
    channels = read_channels(path)
    _, high, wide = channels.shape
    left, sigma, right = torch.linalg.svd(channels, full_matrices=False)
    total = float(channels.square().sum())
    found = [_shown(channels, channels, rank=0, kept=1.0, share=1.0)]
    for rank in sorted({min(r, high, wide) for r in (*RANKS, extra)}):
        rebuilt = (left[:, :, :rank] * sigma[:, None, :rank]) @ right[:, :rank]
        kept = float(sigma[:, :rank].square().sum()) / total if total else 1.0
        share = rank * (high + wide + 1) / (high * wide)
        found.append(_shown(rebuilt, channels, rank=rank, kept=kept, share=share))
    return tuple(found)


def _shown(picture: Tensor, original: Tensor, *, rank: int, kept: float, share: float) -> PictureRank:
    pixels = to_bytes(picture.clamp(0, 1))
    miss = float((pixels.double() / 255 - original).square().mean())
    psnr = -10 * math.log10(miss) if miss > 0 else math.inf
    longest = max(pixels.shape[1:])
    if longest > LONGEST:
        size = (max(1, pixels.shape[2] * LONGEST // longest), max(1, pixels.shape[1] * LONGEST // longest))
        small = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
    return PictureRank(rank=rank, psnr=psnr, energy_kept=kept, share=share, png=png_base64(pixels))
