"""Progress on standard error: which stage of a check runs, how far an attack is, and a training."""

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
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from assay.report.plan_wording import about
from assay.report.terminal.layout import print_line
from assay.report.terminal.plan import print_plan
from assay.wording import seconds

if TYPE_CHECKING:
    from assay.records.budget import CheckPlan
    from assay.training.metrics import StepMetrics


class _Bar:
    """One moving line with the given columns at its end; a context manager."""

    def __init__(
        self, console: Console, *columns: ProgressColumn, disable: bool = False, begins: str = "starting"
    ) -> None:
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


class _TimeLeft(ProgressColumn):
    """What is left of the stage that runs, as far as it is expected to, and of all."""

    def render(self, task: Task) -> Text:
        if "ends" not in task.fields:
            return Text("")
        own = max(0.0, task.fields["ends"] - time.monotonic())
        after = task.fields["after"]
        stage = f"{about(own)} of this, " if own >= 1 and after >= 1 else ""
        return Text(f"{stage}about {about(own + after)} left", style="dim")


class StageProgress(_Bar):
    """The stages that ended, the one that runs, and the time left once a plan is known; a context manager.

    A plain line for every stage that has ended; on a terminal one moving line below them for that which runs.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, _TimeLeft(), disable=not console.is_terminal)
        self._console = console
        self._expected: dict[str, float] | None = None
        self._begun: list[str] = []
        self._since = time.monotonic()

    def __exit__(self, *details: object) -> None:
        if details[0] is None:
            self._end_stage("")
        super().__exit__(*details)

    def plan(self, plan: CheckPlan) -> None:
        """What is expected of every stage; the first plan is printed."""
        if self._expected is None:
            print_plan(plan, self._console)
        self._expected = {stage.name: stage.seconds for stage in plan.stages}

    def show(self, name: str, number: int, total: int) -> None:
        """Stage ``number`` (from 0) of ``total`` begins."""
        self._end_stage(f"{number}/{total} ")
        self._begun.append(name)
        self._since = time.monotonic()
        self._bar.update(self._task, description=name, completed=number, total=total)
        if self._expected is not None:
            own = self._expected.get(name, 0.0)
            self._bar.update(self._task, ends=self._since + own, after=self._left - own)

    @property
    def _left(self) -> float:
        """Expected of the stage that runs and of all after it."""
        return sum(seconds for name, seconds in (self._expected or {}).items() if name not in self._begun[:-1])

    def _end_stage(self, place: str) -> None:
        if self._begun:
            took = seconds(time.monotonic() - self._since)
            after = self._left - (self._expected or {}).get(self._begun[-1], 0.0)
            left = f", about {about(after)} left" if place and after >= 1 and not self._console.is_terminal else ""
            print_line(self._console, f"{place}{self._begun[-1]}: {took}{left}", "dim", wrap=False)


class AttackProgress(_Bar):
    """The method that runs, how many samples it has settled and the time left; a context manager.

    On a terminal it is one moving line; elsewhere (a log file) a plain line every ``log_seconds``.
    """

    def __init__(self, console: Console, *, log_seconds: float = 15.0) -> None:
        super().__init__(console, TimeRemainingColumn(), disable=not console.is_terminal)
        self._console, self._log_seconds, self._logged_at = console, log_seconds, time.monotonic()

    def show(self, method: str, left: int, total: int) -> None:
        """``left`` of ``total`` samples still stand against ``method``, or wait for it."""
        self._bar.update(self._task, description=method, completed=total - left, total=total)
        if not self._console.is_terminal and time.monotonic() - self._logged_at >= self._log_seconds:
            self._logged_at = time.monotonic()
            self._console.print(f"{method}: {total - left:,} of {total:,} samples settled", highlight=False)


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
