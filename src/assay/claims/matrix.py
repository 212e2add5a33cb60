"""The matrix that the claims about factorisations are measured on: pictures as rows."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from assay.claims.claim import Settings
from assay.data.dataset import to_unit_range

SIDE = 8  # pixels; small enough for the whole Hessian


def picture_matrix(settings: Settings, *, rows: int) -> Tensor:
    """float64 (rows, C·8·8): the first training images, averaged down to 8×8 pixels, in [0, 1]."""
    images = to_unit_range(settings.train().images[:rows])
    return F.adaptive_avg_pool2d(images, SIDE).flatten(1).double()
