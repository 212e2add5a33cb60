"""What ``assay trace`` does over time: sequence models on a task, trained or not, and what helps them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from assay.data.sequences import SequenceTask
    from assay.records.base import Record
    from assay.training.metrics import OnStep
    from assay.training.recipes import Recipe


def is_run_of_a_task(name: str | None) -> bool:
    """Whether ``name`` is the run folder of a sequence model (or several names, the first of which is)."""
    from assay.models.sources.run_folder import is_sequence_run

    return name is not None and is_sequence_run(Path(name.split(",")[0].strip()))


def trace_over_time(
    names: str,
    task: SequenceTask | None,
    *,
    hidden: int,
    steps: int,
    batch: int,
    learning_rate: float,
    cells: Sequence[str],
    shape: tuple[float, float] | None,
    seed: int,
    on_step: OnStep | None = None,
) -> list[Record]:
    """Trace each of the models ``names``; with ``steps``, a run of training first, and a test after it.

    A name is a cell of ours, ``file.py:factory``, or the folder of a run, whose task stands in where there is none.
    ``shape`` gives recurrent matrices a spectral radius and a norm first.
    Raises :class:`ModelError` for a run on another task.
    """
    from assay.data.sequences import TEST
    from assay.diagnostics.time import measure_time_trace
    from assay.evaluate import measure_sequence_accuracy
    from assay.models.sequence import make_recurrent_matrix, shape_recurrence
    from assay.training.loop import fit

    spelled = [names] if ":" in names else [name.strip() for name in names.split(",")]
    found: list[Record] = []
    for name in spelled:
        model, own = _open(name, task, hidden=hidden, seed=seed)
        task = task or own
        if own.name != task.name or own.shape != task.shape:
            got = f"one on {own.name}, {own.length} steps"
            raise ModelError(name, expected=f"a run on {task.name}, {task.length} steps", got=got)
        if shape is not None:
            radius, norm = shape
            shape_recurrence(model, make_recurrent_matrix(hidden, radius=radius, norm=norm, seed=seed))
        if steps:
            fit(model, task, recipe=_recipe(name, steps, batch, learning_rate), seed=seed, on_step=on_step)
        inputs, targets = task.draw(batch, TEST, 0)
        loss = partial(_loss, task=task, targets=targets)
        traced = measure_time_trace(model, inputs, loss, label=name, task=task.name, cells=cells)
        found.append(traced.model_copy(update={"trained": steps}))
        if steps or is_run_of_a_task(name):
            found.append(measure_sequence_accuracy(model, task, n=1000, label=name))
    return found


def _open(name: str, task: SequenceTask | None, *, hidden: int, seed: int) -> tuple[nn.Module, SequenceTask]:
    """The model, and the task it is for."""
    from assay.models.sequence import build_sequence_model
    from assay.models.sources.factories import import_factory
    from assay.training.sequence_model import load_sequence_run

    if is_run_of_a_task(name):
        return load_sequence_run(Path(name))
    assert task is not None  # without one, the first name is a run
    if ":" in name:
        return import_factory(name)(task.outputs), task
    model = build_sequence_model(
        name,
        features=task.features,
        outputs=task.outputs,
        length=task.length,
        reads=task.reads,
        hidden=hidden,
        seed=seed,
    )
    return model, task


def _loss(output: Tensor, *, task: SequenceTask, targets: Tensor) -> Tensor:
    return task.loss(output, targets)


def _recipe(name: str, steps: int, batch: int, learning_rate: float) -> Recipe:
    from assay.training.sections import GradientClip
    from assay.training.sequence_model import constant_recipe

    plain = constant_recipe("trace", model=name, steps=steps, batch_size=batch, learning_rate=learning_rate)
    return plain.model_copy(update={"clip": GradientClip(name="norm", limit=1.0)})
