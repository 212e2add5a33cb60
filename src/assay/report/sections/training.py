"""How a run went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.training import TimeSplit, TrainingRun
from assay.report.curves import Axes, Series, draw_curves
from assay.report.parts import Figure, Part, Section, Table, build_section, table, tabulate
from assay.wording import count, number, percent, plural, seconds


def training_section(runs: Sequence[TrainingRun]) -> Section:
    parts: list[Part | None] = []
    for run in runs:
        if run.epochs:
            parts += [*_charts(run), _epochs(run)]
        if run.time_split is not None:
            parts.append(_time(run.time_split))
    summary = " ".join(
        f"{run.model} on {count(run.n)} {run.modality} of {run.data} with the recipe {run.recipe}, seed {run.seed}: "
        f"{plural(len(run.epochs), 'epoch')} in {seconds(run.seconds)}, convolutions in {run.precision}."
        for run in runs
    )
    return build_section("training", "Training", summary, *parts, records=runs)


def _charts(run: TrainingRun) -> list[Figure | None]:
    first, last = run.epochs[0], run.epochs[-1]
    at = [epoch.epoch + 1 for epoch in run.epochs]

    def draw(values: Sequence[Series], y: str, finding: str, *, y_shares: bool = False) -> Figure | None:
        return draw_curves(values, Axes("epoch", y, y_shares=y_shares), finding=finding)

    loss = f"The loss does not fall: {number(first.loss)} at first, {number(last.loss)} at last"
    if last.loss < first.loss:
        loss = f"The loss falls from {number(first.loss)} to {number(last.loss)} {run.loss_unit}"
    losses = Series("training loss", at, [epoch.loss for epoch in run.epochs])
    series = [Series("training, augmented", at, [epoch.accuracy for epoch in run.epochs])]
    held_out = [
        (epoch.epoch + 1, epoch.validation_accuracy) for epoch in run.epochs if epoch.validation_accuracy is not None
    ]
    if held_out:
        series.append(Series("held out", [epoch for epoch, _ in held_out], [share for _, share in held_out]))
    accuracy = f"{percent(series[-1].y[-1])} right at the end ({series[-1].name})"
    norms = Series("gradient norm", at, [epoch.gradient_norm for epoch in run.epochs])
    ratio = number(last.gradient_norm / max(first.gradient_norm, 1e-30))
    rates = Series("learning rate", at, [epoch.learning_rate for epoch in run.epochs])
    return [
        draw([losses], f"mean loss ({run.loss_unit})", loss),
        draw(series, "share right (%)", accuracy, y_shares=True),
        draw(
            [norms],
            "mean gradient norm (L2, before clipping)",
            f"The gradient norm ends at {ratio} times what it began with",
        ),
        draw([rates], "mean learning rate", f"The learning rate peaks at {number(max(rates.y))}"),
    ]


_PARTS_OF_TIME = {
    "network": "forward and backward passes",
    "adversary": "perturbing the images",
    "images": "choosing and augmenting the images",
    "update": "optimizer and weight average",
    "validation": "held-out set and watching the adversary",
    "saving": "checkpoints",
}


def _time(split: TimeSplit) -> Table:
    spent = split.model_dump()
    total = sum(spent.values()) or 1.0
    parts = [(part, spent[name]) for name, part in _PARTS_OF_TIME.items() if spent[name] > 0]
    rows = ((part, seconds(time), percent(time / total)) for part, time in parts)
    return table("Where the time went", ("part", ">time", ">share"), rows)


def _epochs(run: TrainingRun) -> Table:
    return tabulate(
        "Every epoch",
        run.epochs,
        {
            ">epoch": lambda epoch: str(epoch.epoch + 1),
            ">loss": lambda epoch: number(epoch.loss),
            ">right, augmented": lambda epoch: percent(epoch.accuracy),
            ">right, held out": lambda epoch: (
                "–" if epoch.validation_accuracy is None else percent(epoch.validation_accuracy)
            ),
            ">learning rate": lambda epoch: number(epoch.learning_rate),
            ">gradient norm": lambda epoch: number(epoch.gradient_norm),
            ">images/s": lambda epoch: number(epoch.images_per_second),
            ">time": lambda epoch: seconds(epoch.seconds),
        },
        folded=True,
    )
