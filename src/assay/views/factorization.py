"""One picture as a matrix: its best rank-r approximation, and the same product in rescaled factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.arguments import checked
from assay.errors import OptionError
from assay.lowrank.factorization import factorize
from assay.lowrank.gauge import apply_gauge
from assay.lowrank.summary import SCALES, describe_factorization, luma, rebuild_picture
from assay.records.factorization import FactorizationReport, GaugePoint, PictureRank
from assay.views.context import check_limit


@dataclass(frozen=True)
class FactoredPicture:
    """``report`` on the luma, with the original and the picture of ``rank``; ``words`` are those of ``assay factor``.

    ``scaled`` is the point (cA, B/c); ``measured_loss`` is ‖X − (cA)(B/c)‖² multiplied out.
    """

    report: FactorizationReport
    scaled: GaugePoint | None
    measured_loss: float
    words: tuple[str, ...]

    @property
    def picture(self) -> PictureRank:
        """The picture of the chosen rank."""
        return self.report.pictures[-1]

    @property
    def numbers(self) -> tuple[int, int]:
        """How many numbers the factors of a channel hold, and how many the channel."""
        rows, columns = self.report.rows, self.report.columns
        return self.report.rank * (rows + columns + 1), rows * columns


@checked
def factor_picture(
    channels: Tensor, *, name: str, rank: int, scale: float = 1.0, words: tuple[str, ...] = ()
) -> FactoredPicture:
    """Factorise a picture, float64 (C, H, W) in [0, 1], at ``rank``, and measure the pair (cA, B/c), c = ``scale``.

    Raises :class:`OptionError` for a rank beyond 1..min(H, W) and for a scale that is not above 0.
    """
    largest = min(channels.shape[1:])
    if rank < 1:
        raise OptionError("rank", expected=f"1..{largest}", got=rank)
    check_limit(rank, largest, where="rank")
    matrix = luma(channels)
    factors = factorize(matrix, rank)
    report = describe_factorization(factors, matrix, source=name, scales={*SCALES, scale})
    pictures = rebuild_picture(channels, ranks=(rank,))
    gauge = apply_gauge(factors.A, factors.B, scale * torch.eye(factors.rank, dtype=torch.float64))
    X = torch.cat([block.double() for block in matrix.blocks()])
    return FactoredPicture(
        report=report.model_copy(update={"pictures": pictures}),
        scaled=next((point for point in report.gauge if point.scale == scale), None),
        measured_loss=float((X - gauge.A.double() @ gauge.B.double()).square().sum()),
        words=(*words, "--rank", str(rank), *(() if scale == 1 else ("--scale", f"{scale:g}"))),
    )
