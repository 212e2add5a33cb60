"""A folder of checks in the order of their time."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record
from assay.records.comparison import Difference
from assay.records.finding import Status


class MeasuredShare(Proportion):
    """One accuracy of one check; ``measure`` names attack and setting, so that only equal ones make a line."""

    measure: str


class HistoryEntry(Frozen):
    """One check. ``started`` is the time recorded in it, as ISO 8601 in UTC; ``name`` is its place in the folder.

    ``statuses`` are (rule, status) of every rule that was judged. ``changes`` are its differences from the check
    before it, corrected together with all others of the history.
    """

    name: str
    started: str
    model: str
    weights: str | None
    budget: str
    assay: str
    shares: tuple[MeasuredShare, ...]
    median_epsilon: float | None
    statuses: tuple[tuple[str, Status], ...]
    accepted: int
    changes: tuple[Difference, ...] = ()


class Track(Frozen):
    """The checks of one data set and its classes, oldest first."""

    data: str
    split: str
    entries: tuple[HistoryEntry, ...]


class History(Record):
    """Every check of a folder; ``skipped`` names each file that could not be used, with the reason."""

    kind: Literal["history"] = "history"
    schema_version: Literal[1] = 1
    folder: str
    tracks: tuple[Track, ...]
    level: float
    tests: int
    claims: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...] = ()
