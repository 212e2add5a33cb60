"""Documents whose every name is harmless text, before any of it reaches a page, a chart or a terminal."""

from __future__ import annotations

from typing import TypeVar

from assay.records.base import Record
from assay.report.wording import inert

R = TypeVar("R", bound=Record)


def made_inert(record: R) -> R:
    """The same record with :func:`~assay.report.wording.inert` applied to every string in it."""
    return type(record).model_validate(_inert(record.model_dump()))


def _inert(value: object) -> object:
    if isinstance(value, str):
        return inert(value, keep="")
    if isinstance(value, dict):
        return {key: _inert(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_inert(each) for each in value)
    return value
