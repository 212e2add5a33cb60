"""What ``assay train`` prints when a run has ended."""

from __future__ import annotations

from rich.console import Console

from assay.records.training import TrainingRun
from assay.report.terminal.layout import print_line, print_table

_PER_SECOND = {"images": "img/s", "sequences": "seq/s"}


def print_training_run(run: TrainingRun, console: Console) -> None:
    """The epochs as a table, then what the time was spent on."""
    headings = ("epoch", "loss", "accuracy", "validation", "learning rate", "gradient", _PER_SECOND[run.modality])
    print_table(
        console,
        [f">{heading}" for heading in (*headings, "seconds")],
        (
            (
                str(epoch.epoch + 1),
                f"{epoch.loss:.4f}",
                f"{epoch.accuracy:.2%}",
                "" if epoch.validation_accuracy is None else f"{epoch.validation_accuracy:.2%}",
                f"{epoch.learning_rate:.3g}",
                f"{epoch.gradient_norm:.3g}",
                f"{epoch.images_per_second:,.0f}",
                f"{epoch.seconds:.1f}",
            )
            for epoch in run.epochs
        ),
    )
    trained = f"Trained {run.model} on {run.n:,} {run.modality} of {run.data} in {run.seconds:.1f} s"
    print_line(console, f"{trained} ({run.precision}).", wrap=False)
    if run.time_split is not None:
        parts = [f"{name} {took:.1f} s" for name, took in run.time_split.model_dump().items() if took >= 0.05]
        print_line(console, f"Time: {', '.join(parts)}.", wrap=False)
