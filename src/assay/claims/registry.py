"""Every claim, in the order in which they are listed and reported.

One import and one line in the tuple a claim.
"""

from __future__ import annotations

from assay.claims.attack_steps import ATTACK_STEPS
from assay.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = (ATTACK_STEPS,)
