"""The results that a run of claims has so far, one file each, so that it can go on after it was stopped."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from assay.claims.claim import Settings
from assay.errors import OutputError
from assay.files import make_folder, remove_leftovers, write_atomically
from assay.models.sources.run_folder import WEIGHTS
from assay.records.claims import ClaimResult


class Journal:
    """Results under ``folder/results``, valid for the settings that they were measured with and for no others."""

    def __init__(self, folder: Path, settings: Settings, *, resume: bool) -> None:
        self._folder = make_folder(folder / "results")
        self._fingerprint = fingerprint(settings)
        self._resume = resume
        remove_leftovers(self._folder)

    def find(self, claim: str) -> ClaimResult | None:
        """The result of this claim that an earlier run of the same settings left; None without ``resume``."""
        path = self._folder / f"{claim}.json"
        if not self._resume or not path.is_file():
            return None
        try:
            content = json.loads(path.read_text())
            if content["fingerprint"] != self._fingerprint:
                return None
            return ClaimResult.model_validate(content["result"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None  # of another version: worth nothing, and loses nothing but time

    def add(self, result: ClaimResult) -> None:
        """Keep one more result."""
        content = {"fingerprint": self._fingerprint, "result": result.model_dump(mode="json")}
        write_atomically(self._folder / f"{result.id}.json", json.dumps(content))


def fingerprint(settings: Settings) -> str:
    """SHA-256 over everything that a result follows from: version, budget, data, seed, model and its weights."""
    parts = [version("assay"), settings.budget, settings.data, str(settings.seed), settings.model or ""]
    digest = hashlib.sha256(json.dumps(parts).encode())
    weights = settings.weights
    if weights is None and settings.model is not None:
        weights = Path(settings.model) / WEIGHTS
    if weights is not None and weights.is_file():
        try:
            digest.update(weights.read_bytes())
        except OSError as error:
            raise OutputError(f"{weights}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()
