"""What every record is: frozen, free of tensors, and equal to itself after a trip through JSON."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A part of a record: immutable, closed to unknown fields.

    Non-finite floats travel through JSON as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, so the text
    stays valid JSON for every other reader.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=True)

    def _repr_html_(self) -> str:
        """What a notebook shows; see :mod:`assay.records.notebook`."""
        from assay.records.notebook import show_record

        return show_record(self)


class Record(Frozen):
    """One measurement. Each subclass declares ``kind``, the snake-case name of its class, as a literal default."""

    @property
    def record(self) -> Self:
        """The record itself: ``measure_x(...).record`` is one whether a function returns a record or holds one."""
        return self


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
