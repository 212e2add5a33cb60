"""Accuracy under each image operation, as small multiples and as a table."""

from __future__ import annotations

import altair as alt

from assay.records.augmentation import Invariance, OperationAccuracy, OperationPoint
from assay.records.checkup import Checkup
from assay.report.charts import ACCENT, SOFT, AnyChart, Row, figure, shares, source, tip
from assay.report.parts import Section, Table, table
from assay.wording import count, percent, seconds


def invariance_section(checkup: Checkup) -> Section | None:
    """The chapter, or None when nothing of the kind was measured."""
    record = checkup.first(Invariance)
    if record is None or not record.operations:
        return None
    finding = f"Worst under {record.worst_operation}: {percent(record.worst_accuracy)} on average over its strengths"

    def build(width: int) -> AnyChart:
        columns = max(2, width // 145)
        cells = [_cell(each, record, width=(width - 20) // columns - 45) for each in record.operations]
        return alt.vconcat(
            *(alt.hconcat(*cells[start : start + columns], spacing=18) for start in range(0, len(cells), columns)),
            spacing=16,
        )

    note = "From left to right rising strengths, the first hardly visible; the dashed line is the untouched accuracy."
    parts = (figure(build, finding=finding, note=note, table=_table(record), full=True),)
    summary = (
        f"{count(record.clean.n)} images, {percent(record.clean.accuracy)} of them right when untouched and "
        f"{percent(record.mean_accuracy)} on average over {len(record.operations)} operations; half of the images are "
        f"changed in one direction and half in the other. Took {seconds(record.seconds)}."
    )
    return Section("invariance", "Image operations", summary, parts, records=(record,))


def _cell(each: OperationAccuracy, record: Invariance, *, width: int) -> AnyChart:
    rows: list[Row] = [
        {
            "level": point.level,
            "accuracy": point.accuracy,
            "low": point.low,
            "high": point.high,
            "tip": f"{each.operation} {_magnitude(each, point)}: {percent(point.accuracy)} "
            f"({percent(point.low)} to {percent(point.high)})",
        }
        for point in each.points
    ]
    y = alt.Y("accuracy:Q", title=None, axis=shares(ticks=3), scale=alt.Scale(domain=[0, 1]))
    x = alt.X("level:Q", title=None, axis=None, scale=alt.Scale(domain=[0.7, 5.3], nice=False))
    base = alt.Chart(source(rows)).encode(x=x)
    clean = alt.Chart(source([{"accuracy": record.clean.accuracy}]))
    interval = base.mark_rule(color=ACCENT, strokeWidth=5, opacity=0.25).encode(
        y=alt.Y("low:Q", title=None), y2="high:Q"
    )
    layers = (
        clean.mark_rule(color=SOFT, strokeDash=[4, 3]).encode(y=y),
        interval,
        base.mark_line(color=ACCENT, strokeWidth=2).encode(y=y),
        base.mark_point(color=ACCENT, filled=True, size=36, opacity=1).encode(y=y, description=tip()),
    )
    title = alt.TitleParams(each.operation, anchor="start", fontSize=12, fontWeight="normal")
    return alt.layer(*layers).properties(width=max(60, width), height=74, title=title)


def _table(record: Invariance) -> Table:
    most = max(len(each.points) for each in record.operations)
    columns = ("operation", *(f">strength {level}" for level in range(1, most + 1)), ">mean")
    rows = tuple(
        (
            each.operation,
            *(f"{percent(point.accuracy)} ({_magnitude(each, point)})".replace(" ()", "") for point in each.points),
            *("",) * (most - len(each.points)),
            percent(each.mean_accuracy),
        )
        for each in record.operations
    )
    return table("Accuracy under each operation", columns, rows, folded=True)


def _magnitude(each: OperationAccuracy, point: OperationPoint) -> str:
    ends = sorted({point.magnitude_low, point.magnitude_high})
    if not each.unit:
        return ""
    if len(ends) == 2 and ends[0] == -ends[1]:
        return f"±{ends[1]:g} {each.unit}"
    return f"{' or '.join(f'{end:g}' for end in ends)} {each.unit}"
