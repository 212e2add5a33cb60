"""What the source of the data tells of each sample beside its label, as ``check.json`` keeps it."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import model_validator

from assay.records.base import Frozen, Record
from assay.records.samples import SampleSet, decode_base64

Scalar = bool | int | float | str | None
ColumnType = Literal["text", "whole", "number", "truth"]
_WIDTHS = (("B", 1 << 8), ("H", 1 << 16), ("I", 1 << 32))  # codes of arrays, by how many values they can number


class SampleColumn(Frozen):
    """One value a sample: the ``values`` there are, each once, and for each sample the number of its own.

    ``codes`` is base64 of these numbers, little-endian, in one, two or four bytes each, as few as number all
    ``values``; empty where the i-th sample has the i-th value. A missing value is None.
    """

    name: str
    type: ColumnType
    values: tuple[Scalar, ...]
    codes: str = ""

    @classmethod
    def of(cls, name: str, values: Sequence[Scalar], *, type: ColumnType) -> Self:
        """Pack ``values``, one a sample; a number that is not one is a missing value."""
        plain = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        distinct = {value: place for place, value in enumerate(dict.fromkeys(plain))}
        if len(distinct) == len(plain):
            return cls(name=name, type=type, values=tuple(plain))
        numbers = array(_code_of(len(distinct)), [distinct[value] for value in plain])
        if sys.byteorder == "big":
            numbers.byteswap()
        return cls(name=name, type=type, values=tuple(distinct), codes=base64.b64encode(numbers.tobytes()).decode())

    @model_validator(mode="before")
    @classmethod
    def _numbers_again(cls, fields: Any) -> Any:
        """JSON has no infinity: it is text there."""
        if isinstance(fields, dict) and fields.get("type") == "number":
            values = [None if value is None else float(value) for value in fields.get("values", ())]
            return {**fields, "values": values}
        return fields

    @model_validator(mode="after")
    def _codes_fit(self) -> Self:
        if any(not 0 <= number < len(self.values) for number in self._numbers()):
            raise ValueError(f"codes of {len(self.values)} values")
        return self

    def _numbers(self) -> Sequence[int]:
        if not self.codes:
            return range(len(self.values))
        numbers = array(_code_of(len(self.values)))
        content = decode_base64(self.codes)
        if len(content) % numbers.itemsize:
            raise ValueError(f"whole codes of {numbers.itemsize} bytes")
        numbers.frombytes(content)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    def unpack(self) -> list[Scalar]:
        """One value a sample, in ascending order of the ids."""
        return [self.values[number] for number in self._numbers()]

    def counts(self) -> dict[Scalar, int]:
        """How many samples have each value, the most frequent first."""
        return {self.values[number]: times for number, times in Counter(self._numbers()).most_common()}


def _code_of(count: int) -> str:
    return next(code for code, most in _WIDTHS if count <= most)


class SampleTable(Record):
    """Columns of metadata for the ``samples`` that were measured, in ascending order of their ids.

    ``left_out`` says which columns are not kept here, and why.
    """

    kind: Literal["sample_table"] = "sample_table"
    samples: SampleSet
    columns: tuple[SampleColumn, ...]
    left_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_value_a_sample(self) -> Self:
        for column in self.columns:
            if sum(column.counts().values()) != self.samples.n:
                raise ValueError(f"{self.samples.n} values in the column {column.name!r}")
        return self
