"""What ``assay trace`` leaves behind: the records, the page that is drawn from them, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.data.dataset import ImageDataset
    from assay.records.base import Record
    from assay.records.checkup import Subject


def subject_of_images(dataset: ImageDataset, *, model: str, weights: Path | None) -> Subject:
    """A classifier and the images it was traced on."""
    from assay.records.checkup import Subject

    return Subject(
        model=model,
        weights=None if weights is None else str(weights),
        data=dataset.name,
        split=dataset.split,
        n=len(dataset),
        available=len(dataset),
        classes=dataset.classes,
        image_shape=dataset.shape,
    )


def subject_of_sequences(records: Sequence[Record]) -> Subject:
    """The models and the task that ``records`` speak of."""
    from assay.records.checkup import Subject
    from assay.records.recurrence import RemedyComparison, TimeTrace

    traces = [record for record in records if isinstance(record, TimeTrace)]
    compared = [record for record in records if isinstance(record, RemedyComparison)]
    n = traces[0].n if traces else compared[0].batch_size
    return Subject(
        model=", ".join(trace.label for trace in traces) or "a tanh recurrence with and without remedies",
        weights=None,
        data=traces[0].task if traces else compared[0].task,
        split="test",
        n=n,
        available=n,
        classes=(),
        image_shape=None,
        modality="sequences",
    )


def write_trace(
    out: Path,
    records: Sequence[Record],
    *,
    subject: Subject,
    seed: int,
    started: datetime,
    seconds: float,
    device: str,
) -> list[str]:
    """Write ``trace.json`` (as ``assay report`` reads it), ``report.html`` and the pictures; the names of all."""
    from assay.files import write_atomically
    from assay.records.checkup import Checkup
    from assay.report.check_page import render_page
    from assay.runtime import choose_device, describe_environment
    from assay.verdict import judge

    checkup = Checkup(
        subject=subject,
        budget="trace",
        seed=seed,
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
        environment=describe_environment(choose_device(device)),
        stages=(),
        records=tuple(records),
        verdicts=judge(records),
    )
    write_atomically(out / "trace.json", checkup.model_dump_json(indent=1) + "\n")
    write_atomically(out / "report.html", render_page(checkup))
    return ["trace.json", "report.html", *draw(records, out)]


def draw(records: Sequence[Record], out: Path) -> list[str]:
    """Every picture the records have, as SVG and PNG; the names of the files without their ending."""
    from assay.records.gradients import DepthTrace, InputGradients
    from assay.records.recurrence import RemedyComparison, TimeTrace
    from assay.report import trace_charts as charts

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
        charts.save_chart(chart, out / f"{name}.svg")
        charts.save_chart(chart, out / f"{name}.png")
    return list(drawn)
