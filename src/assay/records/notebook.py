"""A record as a notebook shows it: its fields in a compact table, pictures as pictures, every text escaped.

Colours and fonts are the notebook's own, so it reads in light and in dark; nothing is fetched and no script runs.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from html import escape

from pydantic import BaseModel

from assay.records.views import VIEWS
from assay.wording import clip, picture_url

ROWS = COLUMNS = 12  # of a table of parts; further rows are counted
LONGEST = 200  # characters of a text
DEPTH = 3  # parts within parts that are opened
# The first bytes of a PNG or JPEG file in base64
_PICTURE = re.compile(r"(iVBORw0KGgo|/9j/)[A-Za-z0-9+/]+={0,2}")
_STYLE = (
    "<style>.assay-record{font-size:13px;line-height:1.45;max-width:72em}"
    ".assay-record table{border-collapse:collapse;margin:.2em 0}"
    ".assay-record th,.assay-record td{text-align:left!important;vertical-align:top;padding:.1em .9em .1em 0;"
    "border:0;background:none;color:inherit}"
    ".assay-record th{font-weight:500;opacity:.75}"
    ".assay-record td{font-variant-numeric:tabular-nums}"
    ".assay-record caption{text-align:left;font-weight:650;color:inherit;caption-side:top;padding:.2em 0}"
    ".assay-record tbody tr{background:none;border-top:1px solid rgb(128 128 128/.25)}"
    ".assay-record summary{cursor:pointer}"
    ".assay-record img{width:64px;height:auto;image-rendering:pixelated;display:block}"
    ".assay-record svg{vertical-align:middle}</style>"
)


def show_record(record: BaseModel) -> str:
    """The view of its class, with charts, where it has one; else the table of its fields."""
    module, _, function = VIEWS.get(type(record).__name__, "").partition(":")
    if not module:
        return render_record(record)
    shown: str = getattr(importlib.import_module(module), function)(record)
    return shown


def render_record(record: BaseModel) -> str:
    """The record as one HTML element with its own style."""
    return f'<div class="assay-record">{_STYLE}{_table(record, depth=0)}</div>'


def _table(part: BaseModel, *, depth: int) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(_words(name))}</th><td>{_value(value, depth=depth)}</td></tr>'
        for name, value in _fields(part)
    )
    caption = f"<caption>{escape(_words(type(part).__name__))}</caption>" if depth == 0 else ""
    return f"<table>{caption}<tbody>{rows}</tbody></table>"


def _fields(part: BaseModel) -> list[tuple[str, object]]:
    """Names and values of what is there; the kind is the caption already."""
    fields = [(name, getattr(part, name)) for name in type(part).model_fields if name != "kind"]
    return [(name, value) for name, value in fields if value is not None and value not in ((), "", {})]


def _value(value: object, *, depth: int) -> str:
    if isinstance(value, BaseModel):
        return _folded(_summary(value), _table(value, depth=depth + 1)) if depth < DEPTH else escape(_summary(value))
    if isinstance(value, Mapping):
        return escape(clip(", ".join(f"{key}: {_text(item)}" for key, item in value.items()), LONGEST))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _several(value, depth=depth)
    if isinstance(value, str) and _PICTURE.fullmatch(value):
        return f'<img alt="" src="{picture_url(value)}">'
    return escape(clip(_text(value), LONGEST))


def _several(values: Sequence[object], *, depth: int) -> str:
    parts = [value for value in values if isinstance(value, BaseModel)]
    if parts and len(parts) == len(values):
        count = f"{len(parts)} × {_words(type(parts[0]).__name__)}"
        return _folded(count, _grid(parts, depth=depth)) if depth < DEPTH else escape(count)
    rows = [value for value in values if isinstance(value, Sequence) and not isinstance(value, str)]
    if rows and len(rows) == len(values):
        return escape(f"{len(rows)} × {max(map(len, rows))} values")
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values) and len(numbers) > 6:
        ends = f"{_text(numbers[0])} … {_text(numbers[-1])}"
        return f"{_sparkline(numbers)} {escape(f'{ends} ({len(numbers)} values)')}"
    return escape(clip(", ".join(map(_text, values)), LONGEST))


def _grid(parts: Sequence[BaseModel], *, depth: int) -> str:
    """Parts of one kind as the rows of a table; where they have too many fields, as tables of their own."""
    names = list(dict.fromkeys(name for part in parts[:ROWS] for name, _ in _fields(part)))
    more = f"<div>and {len(parts) - ROWS} more</div>" if len(parts) > ROWS else ""
    if len({type(part) for part in parts}) > 1 or len(names) > COLUMNS:
        return "".join(_folded(_summary(part), _table(part, depth=depth + 1)) for part in parts[:ROWS]) + more
    head = "".join(f'<th scope="col">{escape(_words(name))}</th>' for name in names)
    cells = ([_value(dict(_fields(part)).get(name, ""), depth=DEPTH) for name in names] for part in parts[:ROWS])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _summary(part: BaseModel) -> str:
    """What it is, and the first of its texts and numbers."""
    texts = [_text(value) for _, value in _fields(part) if isinstance(value, str | int | float)][:3]
    return clip(_words(type(part).__name__) + (f": {', '.join(texts)}" if texts else ""), LONGEST)


def _sparkline(numbers: Sequence[float], *, width: int = 90, height: int = 18) -> str:
    """The course of a series as a small drawing in the colour of the text."""
    finite = [number for number in numbers if math.isfinite(number)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = (high - low) or 1.0
    points = " ".join(
        f"{width * i / (len(numbers) - 1):.1f},{height - 2 - (height - 4) * (number - low) / span:.1f}"
        for i, number in enumerate(numbers)
        if math.isfinite(number)
    )
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    """``RobustAccuracy`` and ``robust_accuracy`` as words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").lower()
