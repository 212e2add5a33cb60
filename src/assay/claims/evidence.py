"""What experiments put their numbers into: paired samples, counts, means with intervals, and curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from assay.claims.rule import interval
from assay.records.claims import Axis, ClaimFact, ClaimSample, Expectation, Grid, Point

Values = Iterable[float] | Tensor


def difference(
    name: str,
    values: Values,
    unit: str,
    expects: Expectation,
    margin: float,
    *,
    over: str = "seeds",
    decides: bool = True,
) -> ClaimSample:
    """Paired differences, one for each of what they are ``over``, and what the claim expects of their mean."""
    numbers = tuple(values.tolist() if isinstance(values, Tensor) else values)
    return ClaimSample(name=name, unit=unit, values=numbers, over=over, expects=expects, margin=margin, decides=decides)


def ratio(
    name: str, values: Values, expects: Expectation, margin: float, *, over: str = "seeds", decides: bool = True
) -> ClaimSample:
    """The same for quotients; ``margin`` is a factor of at least 1."""
    sample = difference(name, values, "", expects, margin, over=over, decides=decides)
    return sample.model_copy(update={"scale": "ratio"})


def fact(name: str, expected: str, got: str, holds: bool, *, decides: bool = True) -> ClaimFact:
    return ClaimFact(name=name, expected=expected, got=got, holds=holds, decides=decides)


def counted(name: str, count: int, of: int, *, decides: bool = True) -> ClaimFact:
    """A fact that holds where ``count`` is all ``of`` them."""
    return fact(name, f"{of} of {of}", f"{count} of {of}", count == of, decides=decides)


def quotients(of: Sequence[float], over: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(of, over, strict=True)]


def mean_point(
    values: Iterable[float], *, x: float | str, series: str = "", within: tuple[float, float] = (-math.inf, math.inf)
) -> Point:
    """The mean of ``values`` with its 95 % interval, cut off at the ends of what is possible."""
    mean, low, high = interval(list(values))
    return Point(series=series, x=x, y=mean, low=max(within[0], low), high=min(within[1], high))


def geometric_point(values: Iterable[float], *, x: float | str, series: str = "") -> Point:
    """The geometric mean of positive ``values`` with the 95 % interval of their logarithms."""
    logs = torch.tensor(list(values), dtype=torch.float64).log().tolist()
    mean, low, high = torch.tensor(interval(logs), dtype=torch.float64).exp().tolist()
    return Point(series=series, x=x, y=mean, low=low, high=high)


def table(caption: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Grid:
    return Grid(caption=caption, columns=tuple(columns), rows=tuple(tuple(row) for row in rows))


def one_table(caption: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> tuple[Grid, ...]:
    return (table(caption, columns, rows),)


def relative(curve: Sequence[float]) -> list[float]:
    return [value / curve[0] for value in curve]


def curve_points(curves: Mapping[str, Sequence[float]], *, start: int = 0) -> tuple[Point, ...]:
    """Every value of every curve, the first at ``x = start``."""
    return tuple(Point(series=name, x=x, y=y) for name, curve in curves.items() for x, y in enumerate(curve, start))


def drawn(mark: str, *, x: str, y: str, x_scale: str = "linear", y_scale: str = "linear") -> dict[str, Any]:
    """The fields of a chart that tell how it is drawn: its mark, and its axes from their titles and scales."""
    axes = {"x": (x, x_scale), "y": (y, y_scale)}
    return {"mark": mark, **{axis: Axis.model_validate({"title": t, "scale": s}) for axis, (t, s) in axes.items()}}
