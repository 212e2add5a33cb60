"""Progress on standard error: which stage of a check runs, and how far a training is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from assay.training.metrics import StepMetrics


class _Bar:
    """One moving line with the given columns at its end; a context manager."""

    def __init__(self, console: Console, *columns: ProgressColumn, disable: bool = False) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            *columns,
            console=console,
            transient=True,
            disable=disable,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class StageProgress(_Bar):
    """One line that names the stage that runs; a context manager."""

    def show(self, name: str, number: int, total: int) -> None:
        """Stage ``number`` (from 0) of ``total`` begins."""
        self._bar.update(self._task, description=name, completed=number, total=total)


class TrainingProgress(_Bar):
    """Step, loss, accuracy, samples a second and the time left; a context manager.

    On a terminal it is one moving line; elsewhere (a log file) a plain line every ``log_seconds``.
    """

    def __init__(self, console: Console, *, log_seconds: float = 15.0) -> None:
        super().__init__(console, TimeRemainingColumn(), disable=not console.is_terminal)
        self._console, self._log_seconds, self._logged_at = console, log_seconds, time.monotonic()
        self._smooth: tuple[float, float] | None = None

    def step(self, metrics: StepMetrics) -> None:
        """One step was made; loss and accuracy are shown smoothed over about ten."""
        now = (metrics.loss, metrics.accuracy)
        before = self._smooth or now
        loss, accuracy = self._smooth = (0.9 * before[0] + 0.1 * now[0], 0.9 * before[1] + 0.1 * now[1])
        text = f"loss {loss:.3f} · accuracy {accuracy:.1%} · {metrics.images_per_second:,.0f}/s"
        self._bar.update(self._task, description=text, completed=metrics.step, total=metrics.steps)
        if not self._console.is_terminal and time.monotonic() - self._logged_at >= self._log_seconds:
            self._logged_at = time.monotonic()
            left = metrics.seconds / metrics.step * (metrics.steps - metrics.step)
            self._console.print(f"step {metrics.step}/{metrics.steps} · {text} · {left:,.0f} s left", highlight=False)
