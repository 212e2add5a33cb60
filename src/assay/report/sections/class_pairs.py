"""Pairs of classes, the most frequent first: what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from assay.report.charts import ALARM, AnyChart, Row, figure, source, tip
from assay.report.parts import Figure, Table
from assay.wording import clip, distinct


@dataclass(frozen=True)
class ClassPair:
    """``images`` of the class ``before`` became ``after``; ``tip`` is what its bar says."""

    before: str
    after: str
    images: int
    tip: str


def draw_pairs(pairs: Sequence[ClassPair], *, finding: str, note: str, table: Table, name_length: int = 24) -> Figure:
    """A bar for each of ``pairs``, from top to bottom."""

    def name(pair: ClassPair, length: int) -> str:
        return f"{clip(pair.before, length)} → {clip(pair.after, length)}"

    def build(width: int) -> AnyChart:
        # two names and an arrow take more room than most
        room = min(width * 3 // 5, 7 * max(len(name(pair, name_length)) for pair in pairs) + 16)
        letters = (room - 16) // 7
        titles = distinct([name(pair, min(name_length, (letters - 3) // 2)) for pair in pairs], length=letters)
        rows: list[Row] = [
            {"pair": title, "images": float(pair.images), "tip": pair.tip}
            for title, pair in zip(titles, pairs, strict=True)
        ]
        axis = alt.Axis(grid=False, ticks=False, domain=False, labelLimit=room, minExtent=room)
        y = alt.Y("pair:N", sort=None, title=None, axis=axis)
        x = alt.X("images:Q", title="images", axis=alt.Axis(format="d", tickMinStep=1, tickCount=4))
        chart: alt.Chart = alt.Chart(source(rows)).mark_bar(color=ALARM, height=11)
        chart = chart.encode(x=x, y=y, description=tip())
        return chart.properties(width=max(60, width - room - 25), height=alt.Step(20))

    return figure(build, finding=finding, note=note, table=table)
