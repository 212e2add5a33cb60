"""Every kind of record there is, filled with plain, empty, zero and non-finite values: the page survives them all."""

from __future__ import annotations

import math
import re
import types
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from assay.records.base import Record
from assay.records.checkup import Checkup, Measurement
from assay.records.sample_table import SampleColumn
from assay.records.samples import SampleBits, SampleLevels, SampleSet
from assay.report.parts import Figure
from assay.report.sections import build_sections

FIXED_COLOUR = re.compile(r'(fill|stroke)="(?!var\(|none|transparent)')  # such a mark would not follow the theme
KINDS: tuple[type[Record], ...] = get_args(get_args(Measurement)[0])
FILLS: dict[str, dict[type, Any]] = {
    "plain": {int: 2, float: 0.5, str: "layer", bool: True, tuple: 3},
    "long": {int: 2, float: 0.25, str: "<b>", bool: False, tuple: 70},
    "empty": {int: 0, float: 0.0, str: "", bool: False, tuple: 0, type(None): None},
    "zero": {int: 0, float: 0.0, str: "x", bool: False, tuple: 2},
    "not a number": {int: 1, float: math.nan, str: "x", bool: True, tuple: 2},
    "infinite": {int: 1, float: math.inf, str: "x", bool: True, tuple: 2},
}
TWO = SampleSet(n=2, ids="0..1", labels="l", pixels="p")
SHAPED = {
    SampleSet: TWO,
    SampleBits: SampleBits.of(TWO, [True, False]),
    SampleLevels: SampleLevels.of(TWO, [0, 1]),
    SampleColumn: SampleColumn.of("site", [None, "<b>"], type="text"),
}


def fill(annotation: Any, values: dict[type, Any]) -> Any:
    """A value of the annotated type, made of ``values``; tuples have as many members as ``values[tuple]``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return arguments[0]
    if origin in {Union, types.UnionType}:
        if type(None) in values and type(None) in arguments:
            return None
        return fill(next(argument for argument in arguments if argument is not type(None)), values)
    if origin is tuple:
        if arguments[-1] is not Ellipsis:
            return tuple(fill(argument, values) for argument in arguments)
        return tuple(
            fill(arguments[0], values) for _ in range(min(values[tuple], 8 if is_record(arguments[0]) else 70))
        )
    if annotation in SHAPED:
        return SHAPED[annotation]
    if is_record(annotation):
        return annotation(
            **{
                name: fill(field.annotation, values)
                for name, field in annotation.model_fields.items()
                if name != "kind"
            }
        )
    return values[annotation]


def is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


CASES = [pytest.param(kind, values, id=f"{kind.__name__}, {name}") for kind in KINDS for name, values in FILLS.items()]


@pytest.mark.parametrize(("kind", "values"), CASES)
def test_any_record_becomes_a_section(kind: type[Record], values: dict[type, Any], checkup: Checkup) -> None:
    record = fill(kind, values)
    document = checkup.model_copy(update={"records": (record,), "verdicts": ()})
    first, *_ = build_sections(document)
    assert first.records == (record,)
    assert first.summary
    charts = [part.wide for part in first.parts if isinstance(part, Figure)]
    assert not [chart for chart in charts if FIXED_COLOUR.search(chart)]
