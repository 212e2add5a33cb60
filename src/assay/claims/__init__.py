"""Textbook statements about deep networks, each with the experiment that decides it: one small file a claim."""

from assay.claims.claim import Claim, Settings
from assay.claims.registry import CLAIMS
from assay.claims.run import find_claims, run_claims

__all__ = ["CLAIMS", "Claim", "Settings", "find_claims", "run_claims"]
