"""Textbook statements about deep networks, each with the experiment that decides it: one file a claim."""

from assay.claims.claim import Claim, Settings, list_claims, register_claim
from assay.claims.run import find_claims, run_claims
from assay.records.claims import ClaimEvidence, ClaimFact, ClaimSample

CLAIMS = list_claims()

__all__ = [
    "CLAIMS",
    "Claim",
    "ClaimEvidence",
    "ClaimFact",
    "ClaimSample",
    "Settings",
    "find_claims",
    "register_claim",
    "run_claims",
]
