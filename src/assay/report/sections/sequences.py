"""Tasks of sequences: what the models lose, beside what needs no memory."""

from __future__ import annotations

from assay.records.checkup import Checkup
from assay.records.sequence_accuracy import SequenceAccuracy
from assay.report.parts import NAME, NUMBER, Column, Section, Table
from assay.report.wording import count, interval, number, percent, plural


def sequences_section(checkup: Checkup) -> Section | None:
    """One row a model."""
    found = list(checkup.each(SequenceAccuracy))
    if not found:
        return None
    columns = ("length", "test loss", "without memory", "right", "95 % interval")
    table = Table(
        "Every model on its task",
        (Column("model", NAME), Column("task"), *(Column(title, NUMBER) for title in columns)),
        tuple(
            (
                one.label,
                one.task,
                count(one.length),
                number(one.loss),
                number(one.baseline),
                percent(one.accuracy),
                interval(one),
            )
            for one in found
        ),
    )
    tasks = {(one.task, one.length): one for one in found}.values()
    summary = " ".join(
        f"{one.task} over {plural(one.length, 'step')}: without memory the best answer loses {number(one.baseline)} "
        f"({one.loss_unit}; {one.baseline_is}). Right is: {one.right_is}."
        for one in tasks
    )
    return Section("sequences", "Tasks of sequences", summary, (table,), records=tuple(found))
