"""Every claim, in the order in which they are listed and reported.

One import and one line in the tuple a claim: ``from assay.claims.residual_shape import RESIDUAL_SHAPE``.
"""

from __future__ import annotations

from assay.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
