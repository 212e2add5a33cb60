"""Gradients over time: sequence models on a task, trained or not."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from torch import nn

from assay.arguments import checked
from assay.data.sequences import TEST, SequenceTask
from assay.diagnostics.time import measure_time_trace
from assay.evaluate import measure_sequence_accuracy
from assay.models.calls import copied
from assay.records.checkup import Measurement
from assay.tracing.report import TraceReport, report_sequences
from assay.training.loop import fit
from assay.training.metrics import OnStep
from assay.training.sections import GradientClip
from assay.training.sequence_model import constant_recipe


@checked
def trace_sequences(
    models: Mapping[str, nn.Module],
    task: SequenceTask,
    *,
    steps: int = 0,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    cells: Sequence[str] = (),
    test: Collection[str] = (),
    seed: int = 0,
    on_step: OnStep | None = None,
) -> TraceReport:
    """Measure how far back in time the gradient of each model reaches, after ``steps`` of training on ``task``.

    ``models`` take the inputs of ``task`` and return what its loss takes; copies of them are trained, by Adam with the
    gradient clipped to norm 1. ``cells`` names modules that are recurrent cells written by hand. Each model gets a
    ``time_trace``, and a ``sequence_accuracy`` where it is trained here or named in ``test``. Raises
    :class:`ModelError` for a model without a recurrent or attention layer, :class:`OptionError` for an unknown cell.

    >>> from assay.data.sequences import adding_problem
    >>> from assay.models.sequence import build_sequence_model
    >>> from assay.tracing import trace_sequences
    >>> task = adding_problem(12)
    >>> model = build_sequence_model("rnn", features=task.features, outputs=task.outputs, length=12, hidden=8)
    >>> report = trace_sequences({"rnn": model}, task)
    >>> [record.kind for record in report.records]
    ['time_trace']
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    records: list[Measurement] = []
    for name, model in models.items():
        if steps:
            model = copied(model)
            recipe = constant_recipe(
                "trace", model=name, steps=steps, batch_size=batch_size, learning_rate=learning_rate
            ).model_copy(update={"clip": GradientClip(name="norm", limit=1.0)})
            fit(model, task, recipe=recipe, seed=seed, on_step=on_step)
        inputs, targets = task.draw(batch_size, TEST, 0)
        loss = partial(lambda targets, output: task.loss(output, targets), targets)
        traced = measure_time_trace(model, inputs, loss, label=name, task=task.name, cells=cells)
        records.append(traced.model_copy(update={"trained": steps}))
        if steps or name in test:
            records.append(measure_sequence_accuracy(model, task, n=1000, label=name))
    return report_sequences(records, seed=seed, started=started, seconds=time.perf_counter() - clock)
