"""How a run went, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from assay.records.checkup import Checkup
from assay.records.training import TrainingRun
from assay.report.drawing import AnyChart, Row, colours, figure, shapes, shares, source, tip
from assay.report.parts import NUMBER, Column, Figure, Part, Section, Table
from assay.report.wording import count, number, percent, plural, seconds


def training_section(checkup: Checkup) -> Section | None:
    """Loss, accuracy, gradient norm and learning rate of each run."""
    runs = list(checkup.each(TrainingRun))
    if not runs:
        return None
    parts: list[Part] = [part for run in runs if run.epochs for part in (*_charts(run), _epochs(run))]
    summary = " ".join(
        f"{run.model} on {count(run.n)} images of {run.data} with the recipe {run.recipe}, seed {run.seed}: "
        f"{plural(len(run.epochs), 'epoch')} in {seconds(run.seconds)}."
        for run in runs
    )
    return Section("training", "Training", summary, tuple(parts), records=tuple(runs))


def _charts(run: TrainingRun) -> tuple[Figure, Figure]:
    first, last = run.epochs[0], run.epochs[-1]
    loss = _over_epochs(
        [("training loss", [epoch.loss for epoch in run.epochs])],
        title="mean loss (nats)",
        finding=f"The loss falls from {number(first.loss)} to {number(last.loss)} nats"
        if last.loss < first.loss
        else f"The loss does not fall: {number(first.loss)} at first, {number(last.loss)} at last",
        percentages=False,
    )
    series = [("training, augmented", [epoch.accuracy for epoch in run.epochs])]
    held_out = [epoch.validation_accuracy for epoch in run.epochs]
    if any(value is not None for value in held_out):
        series.append(("held out", [value if value is not None else float("nan") for value in held_out]))
    name, values = series[-1]
    final = next((value for value in reversed(values) if not math.isnan(value)), 0.0)
    accuracy = _over_epochs(
        series, title="share right (%)", finding=f"{percent(final)} right at the end ({name})", percentages=True
    )
    return loss, accuracy


def _over_epochs(
    series: Sequence[tuple[str, Sequence[float]]], *, title: str, finding: str, percentages: bool
) -> Figure:
    rows: list[Row] = [
        {
            "series": name, "epoch": epoch, "value": value,
            "tip": f"{name}, epoch {epoch}: {percent(value) if percentages else number(value)}",
        }
        for name, values in series
        for epoch, value in enumerate(values, start=1)
        if not math.isnan(value)
    ]  # fmt: skip
    names = [name for name, _ in series]

    def build(width: int) -> AnyChart:
        axis = shares() if percentages else alt.Axis(tickCount=5)
        base = alt.Chart(source(rows)).encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(grid=False, tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=title, axis=axis),
            color=colours(names),
        )
        return alt.layer(
            base.mark_line(strokeWidth=2),
            base.mark_point(filled=True, size=35, opacity=1).encode(shape=shapes(names), description=tip()),
        ).properties(width=width - 55, height=220)

    return figure(build, finding=finding, legend=names if len(names) > 1 else ())


def _epochs(run: TrainingRun) -> Table:
    columns = ("loss", "right, augmented", "right, held out", "learning rate", "gradient norm", "images/s", "time")
    return Table(
        "Every epoch",
        (Column("epoch", NUMBER), *(Column(title, NUMBER) for title in columns)),
        tuple(
            (
                str(epoch.epoch),
                number(epoch.loss),
                percent(epoch.accuracy),
                "–" if epoch.validation_accuracy is None else percent(epoch.validation_accuracy),
                number(epoch.learning_rate),
                number(epoch.gradient_norm),
                count(round(epoch.images_per_second)),
                seconds(epoch.seconds),
            )
            for epoch in run.epochs
        ),
        folded=True,
    )
