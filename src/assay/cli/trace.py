"""``assay trace``: where gradients vanish and explode, over depth and over time, and what helps."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import OptionError
from assay.tracing.files import subject_of_images, subject_of_sequences, write_trace
from assay.tracing.sequences import is_run_of_a_task, trace_over_time

if TYPE_CHECKING:
    from torch import nn

    from assay.data.dataset import ImageDataset
    from assay.data.sequences import SequenceTask
    from assay.records.base import Record
    from assay.records.gradients import DepthTrace

CELLS = "rnn,ornn,lstm,transformer"


class TaskName(StrEnum):
    """A sequence task; rows and pixels read the images of --data."""

    ADDING = "adding"
    COPY = "copy"
    ROWS = "rows"
    PIXELS = "pixels"


def trace(
    model: Annotated[
        str | None,
        typer.Argument(
            help="An image classifier as for `assay check`; with --task one or several of rnn, rnn-linear, rnn-relu, "
            f"irnn, ornn, gru, lstm, lstm-chrono, transformer and folders of runs, joined by commas (default {CELLS}), "
            "or file.py:factory.",
            show_default=False,
        ),
    ] = None,
    weights: arg.Weights = None,
    data: arg.Data = "digits",
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    limit: Annotated[int, typer.Option(min=1, help="Use only the first N samples.")] = 512,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0, help="Train a copy for N steps: 30 over depth, 0 over time, 400 for remedies.", show_default=False
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="Of these steps, and held against 2/λmax: 0.01 over depth, 0.003 over time.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Sample every N-th training step.")] = 10,
    task: Annotated[TaskName | None, typer.Option(help="Trace over time on this task.", show_default=False)] = None,
    length: Annotated[int, typer.Option(min=2, help="Steps of the adding problem; blanks of copy.")] = 100,
    side: Annotated[
        int | None, typer.Option(min=2, help="Shrink images to this side first.", show_default=False)
    ] = None,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the sequence models.")] = 64,
    radius: Annotated[
        float | None, typer.Option(help="With --norm: a recurrent matrix of this spectral radius.", show_default=False)
    ] = None,
    norm: Annotated[
        float | None, typer.Option(help="With --radius: and of this norm, at least the radius.", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences to trace, and of a training step.")] = 32,
    cells: Annotated[
        list[str] | None,
        typer.Option(help="Follow this module of yours as a recurrent cell, call by call; may be repeated."),
    ] = None,
    remedies: Annotated[bool, typer.Option("--remedies", help="Measure what helps, on --task adding.")] = False,
    curvature: Annotated[bool, typer.Option("--curvature", help="Also the largest Hessian eigenvalues.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write trace.json, report.html and pictures (SVG, PNG) here.", show_default=False),
    ] = None,
    normalization: arg.Normalization = None,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
) -> None:
    """Trace gradients: over the depth of an image classifier and a few training steps, or over time with --task.

    The model is left as found: training steps are done by a copy.
    """
    from rich.console import Console

    from assay.cli.progress import TrainingProgress
    from assay.files import make_folder
    from assay.report.terminal.trace import print_traces
    from assay.verdict import judge

    if out is not None:
        make_folder(out)
    started, clock = datetime.now(UTC), time.perf_counter()
    console = Console()
    if remedies or task is not None or is_run_of_a_task(model):
        made = None
        if remedies or task is not None:
            made = _sequence_task(task or TaskName.ADDING, length, data, data_dir, split, limit, side, seed)
        if remedies and made is not None:
            records: list[Record] = [
                _remedies(made, hidden, 400 if steps is None else steps, learning_rate or 3e-3, seed)
            ]
        else:
            with TrainingProgress(Console(stderr=True)) as progress:
                records = trace_over_time(
                    model or CELLS,
                    made,
                    hidden=hidden,
                    steps=steps or 0,
                    batch=batch,
                    learning_rate=learning_rate or 3e-3,
                    cells=cells or (),
                    shape=_shape_of(radius, norm),
                    seed=seed,
                    on_step=progress.step,
                )
        subject = subject_of_sequences(records)
    else:
        from assay.data.sources import load_dataset
        from assay.models.sources import load_model
        from assay.runtime import choose_device

        if model is None:
            raise OptionError("MODEL", expected="a model, or --task for sequence models of our own", got="nothing")
        dataset = load_dataset(data, split=split, data_dir=data_dir, limit=limit)
        network = load_model(
            model,
            weights=weights,
            classes=len(dataset.classes),
            image_shape=dataset.shape,
            normalization=normalization,
        ).to(choose_device(device))
        subject = subject_of_images(dataset, model=model, weights=weights)
        taken = 30 if steps is None else steps
        records = _over_depth(network, dataset, model, taken, every, learning_rate or 0.01, curvature, seed)
    print_traces(records, judge(records), console)
    if out is not None:
        seconds = time.perf_counter() - clock
        names = write_trace(out, records, subject=subject, seed=seed, started=started, seconds=seconds, device=device)
        console.print(f"wrote {out}: {', '.join(names)}", markup=False, highlight=False)


def _over_depth(
    network: nn.Module,
    dataset: ImageDataset,
    name: str,
    steps: int,
    every: int,
    learning_rate: float,
    curvature: bool,
    seed: int,
) -> list[Record]:
    from assay.diagnostics.batchnorm import audit_normalization
    from assay.diagnostics.curvature import measure_curvature
    from assay.diagnostics.depth import measure_gradient_flow
    from assay.diagnostics.modes import audit_modes
    from assay.diagnostics.saliency import measure_input_gradients

    records: list[Record] = [
        audit_modes(network, dataset),
        audit_normalization(network, dataset),
        measure_gradient_flow(network, dataset),
        measure_input_gradients(network, dataset),
    ]
    records += _images_over_time(network, dataset, name)
    if steps:
        records.append(_train_a_copy(network, dataset, name, steps, every, learning_rate, seed))
    if curvature:
        records.append(measure_curvature(network, dataset, learning_rate=learning_rate, seed=seed))
    return records


def _images_over_time(network: nn.Module, dataset: ImageDataset, name: str) -> list[Record]:
    """A classifier that reads images as sequences is traced over time as well."""
    from torch import nn
    from torch.nn import functional as F

    from assay.data.dataset import to_unit_range
    from assay.data.selection import evenly_spaced
    from assay.diagnostics.time import measure_time_trace
    from assay.runtime import device_of

    if not any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in network.modules()):
        return []
    data, device = evenly_spaced(dataset, 32), device_of(network)
    images, labels = to_unit_range(data.images).to(device), data.labels.to(device)
    return [measure_time_trace(network, images, lambda z: F.cross_entropy(z, labels), label=name, task=dataset.name)]


def _train_a_copy(
    network: nn.Module, dataset: ImageDataset, name: str, steps: int, every: int, learning_rate: float, seed: int
) -> DepthTrace:
    """``steps`` steps of the one training loop on a copy, with the hooks in."""
    import copy

    from assay.diagnostics.recorder import record_gradients
    from assay.training.loop import fit
    from assay.training.recipes import Recipe
    from assay.training.sections import ConstantSchedule, Nothing, SGDOptions

    batch_size = min(64, len(dataset))
    recipe = Recipe(
        name="trace",
        epochs=steps * batch_size / len(dataset),
        batch_size=batch_size,
        optimizer=SGDOptions(lr=learning_rate),
        schedule=ConstantSchedule(),
        augment=Nothing(),
    )
    twin = copy.deepcopy(network)
    with record_gradients(twin, every=every, label=name) as recorder:
        fit(twin, dataset, recipe=recipe, seed=seed, on_step=lambda _: recorder.step())
    return recorder.summarize()


def _shape_of(radius: float | None, norm: float | None) -> tuple[float, float] | None:
    """Spectral radius and norm of the recurrent matrix, both or neither."""
    if radius is None and norm is None:
        return None
    if radius is None or norm is None:
        got = "only --norm" if radius is None else "only --radius"
        raise OptionError("--radius", expected="--radius and --norm together", got=got)
    return radius, norm


def _remedies(task: SequenceTask, hidden: int, steps: int, learning_rate: float, seed: int) -> Record:
    from rich.console import Console

    from assay.report.terminal.trace import print_remedy_run
    from assay.tracing.remedies import compare_remedies

    progress = Console(stderr=True)
    return compare_remedies(
        task,
        hidden=hidden,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        on_run=lambda run: print_remedy_run(run, progress),
    )


def _sequence_task(
    name: TaskName,
    length: int,
    data: str,
    data_dir: Path | None,
    split: str,
    limit: int,
    side: int | None,
    seed: int,
) -> SequenceTask:
    from assay.data.sequences import adding_problem, copy_memory, image_rows
    from assay.data.sources import load_dataset

    if name is TaskName.ADDING:
        return adding_problem(length, seed=seed)
    if name is TaskName.COPY:
        return copy_memory(length, seed=seed)
    dataset = load_dataset(data, split=split, data_dir=data_dir, limit=limit)
    return image_rows(dataset, by="row" if name is TaskName.ROWS else "pixel", side=side, seed=seed)
