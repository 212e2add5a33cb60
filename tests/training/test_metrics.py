"""``metrics.jsonl``: what a killed run wrote beyond its checkpoint, or half wrote, is dropped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from assay.errors import DependencyError, OutputError
from assay.training.checkpoint import RunState
from assay.training.metrics import MetricsLog, StepMetrics, TensorBoardLog


def metrics(step: int, **changes: float) -> StepMetrics:
    values = {"loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1, "gradient_norm": 2.0, "images_per_second": 10.0}
    return StepMetrics(step=step, steps=9, epoch=0, seconds=float(step), **{**values, **changes})


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_resuming_keeps_the_lines_up_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(1, 6):
        log.step(metrics(step))
    with path.open("a") as file:
        file.write('{"kind": "step", "st')  # torn by a crash
    again = MetricsLog(path, resume_at=3)
    assert steps_in(path) == [1, 2, 3]
    again.step(metrics(4))
    assert steps_in(path) == [1, 2, 3, 4]
    MetricsLog(path)
    assert path.read_text() == ""


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written"):
        log.step(metrics(1))


def test_an_epoch_is_the_mean_of_its_steps() -> None:
    state = RunState()
    state.count(metrics(1, loss=3.0, accuracy=0.25, gradient_norm=1.0), images=4)
    state.count(metrics(2, loss=1.0, accuracy=0.75, gradient_norm=2.0, learning_rate=0.3), images=4)
    summary = state.close_epoch(5, 0.4)
    assert (summary.epoch, summary.steps, summary.loss, summary.accuracy) == (5, 2, 2.0, 0.5)
    assert (summary.learning_rate, summary.gradient_norm) == (pytest.approx(0.2), 1.5)
    assert (summary.seconds, summary.images_per_second) == (2.0, 4.0)
    assert summary.validation_accuracy == 0.4
    assert (state.step, state.totals.steps, len(state.epochs)) == (2, 0, 1)


def test_without_the_package_tensorboard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match=r"--tensorboard needs .*pip install 'assay\[tensorboard\]'"):
        TensorBoardLog(tmp_path)


def test_tensorboard_gets_every_number_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = TensorBoardLog(tmp_path)
    log(metrics(8, loss=0.25))
    log(metrics(9))
    assert ("train/loss", 0.25, 8) in written
    assert {name for name, _, step in written if step == 9} == {
        f"train/{name}" for name in ("loss", "accuracy", "learning_rate", "gradient_norm", "images_per_second")
    }
    assert written[-1][0] == "closed"
