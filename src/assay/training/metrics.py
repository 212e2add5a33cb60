"""The measurements of a training step, the log they are written to, and the time that its parts take."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from assay.errors import DependencyError, OutputError
from assay.files import write_atomically
from assay.records.training import EpochSummary, TimeSplit


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step: ``step`` of ``steps``, counted from 1; ``epoch`` from 0.

    ``loss`` in nats and ``accuracy`` are of this step's augmented batch, ``gradient_norm`` is the global L2 norm
    before clipping, ``seconds`` the training time so far, without evaluation.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    gradient_norm: float
    images_per_second: float
    seconds: float


OnStep = Callable[[StepMetrics], None]


@dataclass
class EpochTotals:
    """Sums over the steps of one epoch so far; plain numbers, so that a checkpoint can hold them."""

    steps: int = 0
    images: int = 0
    loss: float = 0.0
    correct: int = 0
    gradient_norm: float = 0.0
    learning_rate: float = 0.0
    seconds: float = 0.0

    def add(self, metrics: StepMetrics, *, images: int, seconds: float) -> None:
        self.steps += 1
        self.images += images
        self.loss += metrics.loss * images
        self.correct += round(metrics.accuracy * images)
        self.gradient_norm += metrics.gradient_norm
        self.learning_rate += metrics.learning_rate
        self.seconds += seconds

    def summarize(self, *, epoch: int, validation_accuracy: float | None) -> EpochSummary:
        return EpochSummary(
            epoch=epoch,
            steps=self.steps,
            loss=self.loss / self.images,
            accuracy=self.correct / self.images,
            learning_rate=self.learning_rate / self.steps,
            gradient_norm=self.gradient_norm / self.steps,
            images_per_second=self.images / max(self.seconds, 1e-9),
            seconds=self.seconds,
            validation_accuracy=validation_accuracy,
        )


class MetricsLog:
    """``metrics.jsonl``: a line for every step, epoch and look at an adversary, appended and flushed as they come.

    ``resume_at`` keeps the lines up to that step and drops what a killed run wrote beyond its last checkpoint.
    Without a ``path`` nothing is written. Raises :class:`OutputError` when the file cannot be.
    """

    def __init__(self, path: Path | None, *, resume_at: int = 0) -> None:
        self._path = path
        if path is not None:
            lines = _lines_up_to(path, resume_at) if resume_at else []
            write_atomically(path, "".join(line + "\n" for line in lines))

    def step(self, metrics: StepMetrics) -> None:
        self._append({"kind": "step", **asdict(metrics)})

    def epoch(self, summary: EpochSummary, *, step: int) -> None:
        self._append({"kind": "epoch", "step": step, **summary.model_dump(mode="json")})

    def watch(self, accuracies: dict[str, object] | None, *, epoch: int, step: int, fallen_back: bool) -> None:
        """The accuracies under FGSM and PGD after an epoch, where an adversary is monitored."""
        if accuracies is not None:
            self._append({"kind": "watch", "step": step, "epoch": epoch, **accuracies, "fallen_back": fallen_back})

    def _append(self, values: dict[str, object]) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror or error})") from None


def _lines_up_to(path: Path, step: int) -> list[str]:
    """The complete lines whose ``step`` is not beyond ``step``; a line torn by a crash is dropped."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(json.JSONDecodeError):
            if json.loads(line)["step"] <= step:
                lines.append(line)
    return lines


class TensorBoardLog:
    """Call it with every step's metrics; the event file goes into ``folder``.

    Raises :class:`DependencyError` when the package is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise DependencyError("tensorboard", extra="tensorboard", purpose="--tensorboard") from None
        self._writer = SummaryWriter(str(folder))

    def __call__(self, metrics: StepMetrics) -> None:
        for name in ("loss", "accuracy", "learning_rate", "gradient_norm", "images_per_second"):
            self._writer.add_scalar(f"train/{name}", getattr(metrics, name), metrics.step)
        if metrics.step == metrics.steps:
            self._writer.close()


P = ParamSpec("P")
R = TypeVar("R")


class Stopwatch:
    """Seconds by part of the work, added up over a run; ``seconds`` starts where an interrupted run left off.

    Parts are those of :class:`~assay.records.training.TimeSplit`. On a device that works on its own, a part's time is
    what the host waited for.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def timed(self, name: str, work: Callable[P, R]) -> Callable[P, R]:
        """``work``, every call of it counted towards ``name``."""

        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.part(name):
                return work(*args, **kwargs)

        return counted

    def split(self, *, training: float) -> TimeSplit:
        """The record, given the seconds of all steps: what no other part of a step took is the network's."""
        inside = sum(self.seconds.get(name, 0.0) for name in ("images", "adversary", "update"))
        return TimeSplit(network=max(0.0, training - inside), **self.seconds)
