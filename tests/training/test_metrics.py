"""``metrics.jsonl``: what a killed run wrote beyond its checkpoint, or half wrote, is dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.errors import OutputError
from assay.training.checkpoint import RunState
from assay.training.metrics import MetricsLog, StepMetrics


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
