"""One picture as a matrix: what is left of it at a rank, and the same product in other factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.errors import OptionError
from assay.lowrank.factorize import factorize
from assay.lowrank.gauge import apply_gauge
from assay.lowrank.summary import SCALES, describe_factorization, luma, rebuild_picture
from assay.records.factorization import FactorizationReport, GaugePoint, PictureRank
from assay.views.subject import at_most


@dataclass(frozen=True)
class Factored:
    """``report`` on the luma, its pictures the original and the one of ``rank``; ``words`` name it on a command line.

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
        """How many numbers the factors of all channels hold, and how many the picture."""
        rows, columns = self.report.rows, self.report.columns
        return self.report.rank * (rows + columns + 1), rows * columns


def factor_picture(
    channels: Tensor, *, name: str, rank: int, scale: float = 1.0, words: tuple[str, ...] = ()
) -> Factored:
    """Factorise a picture, float64 (C, H, W) in [0, 1], at ``rank``, and look at the pair (cA, B/c), c = ``scale``.

    Raises :class:`OptionError` for a rank beyond 1..min(H, W) and for a scale that is not above 0.
    """
    largest = min(channels.shape[1:])
    if rank < 1:
        raise OptionError("rank", expected=f"1..{largest}", got=rank)
    at_most(rank, largest, where="rank")
    matrix = luma(channels)
    found = factorize(matrix, rank)
    report = describe_factorization(found, matrix, source=name, scales={*SCALES, scale})
    pictures = rebuild_picture(channels, ranks=(rank,))
    gauge = apply_gauge(found.A, found.B, scale * torch.eye(found.rank, dtype=torch.float64))
    X = torch.cat([block.double() for block in matrix.blocks()])
    return Factored(
        report=report.model_copy(update={"pictures": pictures}),
        scaled=next((point for point in report.gauge if point.scale == scale), None),
        measured_loss=float((X - gauge.A.double() @ gauge.B.double()).square().sum()),
        words=(*words, "--rank", str(rank), *(() if scale == 1 else ("--scale", f"{scale:g}"))),
    )
