"""A trace as a whole: its records, the verdicts on them, and the files that hold both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import torch

from assay.files import make_folder, write_atomically
from assay.records.base import Record
from assay.records.checkup import Checkup, Measurement, Subject
from assay.records.finding import Verdict
from assay.records.gradients import DepthTrace, InputGradients
from assay.records.recurrence import RemedyComparison, TimeTrace
from assay.runtime import describe_environment
from assay.verdict import judge


@dataclass(frozen=True, eq=False)
class TraceReport:
    """The measurements of :func:`assay.trace` or :func:`~assay.tracing.trace_sequences`, in the order they were made.

    ``subject`` names the model and the data; ``device`` is where the model was; ``started`` is in UTC.
    """

    records: tuple[Measurement, ...]
    subject: Subject
    seed: int = 0
    device: str = "cpu"
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The rules that the records decide."""
        return judge(self.records)

    @cached_property
    def record(self) -> Checkup:
        """Everything in one record, as ``trace.json`` holds it."""
        return Checkup(
            subject=self.subject,
            budget="trace",
            seed=self.seed,
            started=self.started.isoformat(timespec="seconds"),
            seconds=self.seconds,
            environment=describe_environment(torch.device(self.device)),
            stages=(),
            records=self.records,
            verdicts=self.verdicts,
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: that of the record in one."""
        return self.record._repr_html_()

    def write(self, folder: str | Path) -> list[str]:
        """Write ``trace.json`` (which ``assay report`` reads), ``report.html``, and each chart as SVG and PNG.

        Returns the names of the files, those of charts without their ending. Raises :class:`InputError` for a folder
        that cannot be written to.
        """
        from assay.report.check_page import render_page

        out = make_folder(Path(folder))
        write_atomically(out / "trace.json", self.record.model_dump_json(indent=1) + "\n")
        write_atomically(out / "report.html", render_page(self.record))
        return ["trace.json", "report.html", *_draw(self.records, out)]


def report_sequences(records: Iterable[Measurement], *, seed: int, started: datetime, seconds: float) -> TraceReport:
    """The report of measurements on a sequence task, which name the models and the task themselves."""
    records = tuple(records)
    traces = [record for record in records if isinstance(record, TimeTrace)]
    compared = [record for record in records if isinstance(record, RemedyComparison)]
    n = traces[0].n if traces else compared[0].batch_size
    subject = Subject(
        model=", ".join(each.label for each in traces) or "a tanh recurrence with and without remedies",
        weights=None,
        data=traces[0].task if traces else compared[0].task,
        split="test",
        n=n,
        available=n,
        classes=(),
        image_shape=None,
        modality="sequences",
    )
    return TraceReport(records, subject, seed=seed, started=started, seconds=seconds)


def _draw(records: Iterable[Record], out: Path) -> list[str]:
    """Every chart that the records have, as SVG and PNG; their names without the ending."""
    from assay.report import trace_charts as charts
    from assay.report.charts import save_chart

    times = [record for record in records if isinstance(record, TimeTrace)]
    drawn = {}
    if times:
        drawn["gradients-over-time"] = charts.gradients_over_time(times)
    if any(record.time_constants for record in times):
        drawn["time-constants"] = charts.forget_time_constants(times)
    for record in records:
        if isinstance(record, DepthTrace):
            drawn["layers-by-steps"] = charts.layers_by_steps(record)
        elif isinstance(record, InputGradients) and record.samples:
            drawn["input-gradients"] = charts.input_gradient_maps(record)
        elif isinstance(record, RemedyComparison):
            drawn["remedies"] = charts.remedies_side_by_side(record)
    for name, chart in drawn.items():
        save_chart(chart, out / f"{name}.svg")
        save_chart(chart, out / f"{name}.png")
    return list(drawn)
