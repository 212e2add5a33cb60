"""Textbook statements about deep networks, each with the experiment that decides it: one small file a claim."""

from assay.claims.claim import Claim, Settings
from assay.claims.registry import CLAIMS

__all__ = ["CLAIMS", "Claim", "Settings"]
