"""``assay trace``: where gradients vanish and explode, over depth and over time, and what helps."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from assay.cli.options import Inputs, flag, option, takes_inputs
from assay.errors import ModelError, OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from assay.data.sequences import SequenceTask

CELLS = "rnn,ornn,lstm,transformer"

# A sequence task; rows and pixels read the images of --data
TaskName = StrEnum("TaskName", "ADDING COPY ROWS PIXELS")


@takes_inputs(
    defaults={"limit": 512},
    helps={
        "model": "An image classifier as for `assay check`; with --task one or several of rnn, rnn-linear, rnn-relu, "
        f"irnn, ornn, gru, lstm, lstm-chrono, transformer and folders of runs, joined by commas (default {CELLS}), "
        "or file.py:factory."
    },
)
def trace(
    inputs: Inputs,
    steps: Annotated[
        int | None,
        option(
            "Training", "Train a copy for N steps: 30 over depth, 0 over time, 400 for remedies.", metavar="N", min=0
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        option(
            "Training",
            "Of these steps, and held against 2/λmax: 0.01 over depth, 0.003 over time.",
            metavar="RATE",
            min=1e-9,
        ),
    ] = None,
    every: Annotated[int, option("Training", "Record every N-th training step.", metavar="N", min=1)] = 10,
    curvature: Annotated[
        bool, flag("Training", "Also measure the largest eigenvalues of the Hessian.", "--curvature")
    ] = False,
    task: Annotated[
        TaskName | None,
        option("Sequences", "Trace over time on this task: adding, copy, rows or pixels.", metavar="TASK"),
    ] = None,
    length: Annotated[
        int, option("Sequences", "Steps of the adding problem; blanks of copy.", metavar="STEPS", min=2)
    ] = 100,
    side: Annotated[
        int | None, option("Sequences", "Shrink images to this side first.", metavar="PIXELS", min=2)
    ] = None,
    hidden: Annotated[int, option("Sequences", "Hidden units of the sequence models.", metavar="N", min=1)] = 64,
    radius: Annotated[
        float | None, option("Sequences", "With --norm: a recurrent matrix of this spectral radius.", metavar="RHO")
    ] = None,
    norm: Annotated[
        float | None,
        option("Sequences", "With --radius: and of this spectral norm, at least the radius.", metavar="NORM"),
    ] = None,
    batch: Annotated[int, option("Sequences", "Sequences to trace, and of a training step.", metavar="N", min=1)] = 32,
    cells: Annotated[
        list[str] | None,
        option(
            "Sequences",
            "Follow this module of yours as a recurrent cell, call by call; may be repeated.",
            metavar="MODULE",
        ),
    ] = None,
    remedies: Annotated[bool, flag("Sequences", "Measure what helps, on --task adding.", "--remedies")] = False,
    out: Annotated[
        Path | None, option("Output", "Write trace.json, report.html and charts (SVG, PNG) here.", metavar="DIR")
    ] = None,
) -> None:
    """Trace gradients: over the depth of an image classifier and a few training steps, or over time with --task.

    The model is left as found: training steps are done by a copy.
    """
    from rich.console import Console

    from assay.cli.drawing import drawing
    from assay.cli.inputs import open_inputs
    from assay.cli.progress import TrainingProgress
    from assay.files import make_folder
    from assay.models.sources.run_folder import is_sequence_run
    from assay.report.terminal.trace import print_remedy_run, print_traces
    from assay.tracing import compare_remedies, trace_sequences
    from assay.tracing import trace as trace_classifier
    from assay.tracing.report import report_sequences

    if out is not None:
        make_folder(out)
    errors = Console(stderr=True)
    made = None
    if remedies or task is not None:
        made = _sequence_task(task or TaskName.ADDING, inputs, length, side, errors)
    first = (inputs.model or "").split(",")[0].strip()
    runs = inputs.model is not None and is_sequence_run(Path(first))
    if remedies and made is not None:
        started, clock = datetime.now(UTC), time.perf_counter()
        comparison = compare_remedies(
            made, hidden=hidden, steps=400 if steps is None else steps, learning_rate=learning_rate or 3e-3,
            seed=inputs.seed, on_run=lambda run: print_remedy_run(run, errors),
        )  # fmt: skip
        seconds = time.perf_counter() - clock
        report = report_sequences([comparison], seed=inputs.seed, started=started, seconds=seconds)
    elif made is not None or runs:
        models, made = _open_models(
            inputs.model or CELLS, made, hidden=hidden, radius_and_norm=_pair(radius, norm), seed=inputs.seed
        )
        with TrainingProgress(errors) as progress:
            report = trace_sequences(
                models,
                made,
                steps=steps or 0,
                batch_size=batch,
                learning_rate=learning_rate or 3e-3,
                cells=cells or (),
                test=[name for name in models if is_sequence_run(Path(name))],
                seed=inputs.seed,
                on_step=progress.step,
            )
    elif inputs.model is None:
        raise OptionError("MODEL", expected="a model, or --task for sequence models of our own", got="nothing")
    else:
        opened = open_inputs(inputs, errors)
        report = trace_classifier(
            opened.model,
            opened.dataset,
            steps=30 if steps is None else steps,
            every=every,
            learning_rate=learning_rate or 0.01,
            curvature=curvature,
            seed=inputs.seed,
            name=opened.name,
            weights=None if inputs.weights is None else str(inputs.weights),
        )
    console = Console()
    print_traces(report.records, report.verdicts, console)
    if out is not None:
        with drawing(out / "trace.json", again=f"assay report {out / 'trace.json'}"):
            written = ", ".join(report.write(out))
        console.print(f"wrote {out}: {written}", markup=False, highlight=False)


def _open_models(
    names: str, task: SequenceTask | None, *, hidden: int, radius_and_norm: tuple[float, float] | None, seed: int
) -> tuple[dict[str, nn.Module], SequenceTask]:
    """The models that ``names`` spells, and their task: that of the first run folder where none is given.

    ``names`` are cells of ours and folders of runs, joined by commas, or one ``file.py:factory``. ``radius_and_norm``
    gives recurrent matrices this spectral radius and spectral norm. Raises :class:`ModelError` for a run on another
    task.
    """
    from assay.models.sequence import make_recurrent_matrix, shape_recurrence

    models: dict[str, nn.Module] = {}
    for name in [names] if ":" in names else [name.strip() for name in names.split(",")]:
        model, own = _open(name, task, hidden=hidden, seed=seed)
        task = task or own
        if own.name != task.name or own.shape != task.shape:
            got = f"one on {own.name}, {own.length} steps"
            raise ModelError(name, expected=f"a run on {task.name}, {task.length} steps", got=got)
        if radius_and_norm is not None:
            radius, norm = radius_and_norm
            shape_recurrence(model, make_recurrent_matrix(hidden, radius=radius, norm=norm, seed=seed))
        models[name] = model
    assert task is not None  # without one, the first name is a run
    return models, task


def _open(name: str, task: SequenceTask | None, *, hidden: int, seed: int) -> tuple[nn.Module, SequenceTask]:
    from assay.models.sequence import build_sequence_model
    from assay.models.sources.factories import import_factory
    from assay.models.sources.run_folder import is_sequence_run
    from assay.training.sequence_model import load_sequence_run

    if is_sequence_run(Path(name)):
        return load_sequence_run(Path(name))
    assert task is not None
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


def _pair(radius: float | None, norm: float | None) -> tuple[float, float] | None:
    """Spectral radius and norm of the recurrent matrix, both or neither."""
    if radius is None and norm is None:
        return None
    if radius is None or norm is None:
        got = "only --norm" if radius is None else "only --radius"
        raise OptionError("--radius", expected="--radius and --norm together", got=got)
    return radius, norm


def _sequence_task(name: TaskName, inputs: Inputs, length: int, side: int | None, console: Console) -> SequenceTask:
    from assay.cli.inputs import open_data
    from assay.data.sequences import adding_problem, copy_memory, image_rows

    if name is TaskName.ADDING:
        return adding_problem(length, seed=inputs.seed)
    if name is TaskName.COPY:
        return copy_memory(length, seed=inputs.seed)
    dataset = open_data(replace(inputs, model=None, data=inputs.data or "digits"), console)
    return image_rows(dataset, by="row" if name is TaskName.ROWS else "pixel", side=side, seed=inputs.seed)
