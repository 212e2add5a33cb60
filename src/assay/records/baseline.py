"""``accepted.json``: the findings that a project decided to live with."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record
from assay.records.finding import Acceptance

BASELINE_VERSION: Literal[1] = 1


class Baseline(Record):
    """Accepted findings, one a rule; people edit and review this file."""

    kind: Literal["baseline"] = "baseline"
    schema_version: Literal[1] = BASELINE_VERSION
    accepted: tuple[Acceptance, ...] = ()


class Outdated(Frozen):
    """An entry of a baseline that accepts nothing in this check, and why."""

    entry: Acceptance
    because: str
