"""The machine and the software a record was made with."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Record


class Environment(Record):
    """Enough to tell why two runs differ; no host name, no user name, no path."""

    kind: Literal["environment"] = "environment"
    assay: str
    python: str
    torch: str
    numpy: str
    platform: str
    processor: str
    cores: int
    threads: int
    device: str
    memory_gib: float
