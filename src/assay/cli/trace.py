"""``assay trace``: where gradients vanish and explode, over depth and over time, and what helps."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import arguments as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from assay.data.dataset import ImageDataset
    from assay.data.sequences import SequenceTask
    from assay.records.base import Record
    from assay.records.depth_trace import DepthTrace

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
            f"irnn, ornn, gru, lstm, lstm-chrono, transformer, joined by commas (default {CELLS}), or file.py:factory.",
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
    batch: Annotated[int, typer.Option(min=1, help="Sequences to trace.")] = 32,
    remedies: Annotated[bool, typer.Option("--remedies", help="Measure what helps, on --task adding.")] = False,
    curvature: Annotated[bool, typer.Option("--curvature", help="Also the largest Hessian eigenvalues.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write trace.json and pictures (SVG, PNG) here.", show_default=False)
    ] = None,
    normalization: arg.Normalization = None,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
) -> None:
    """Trace gradients: over the depth of an image classifier and a few training steps, or over time with --task.

    The model is left as found: training steps are done by a copy.
    """
    from rich.console import Console

    from assay.cli import trace_printing as printing
    from assay.files import make_folder, write_atomically

    if out is not None:
        make_folder(out)
    console = Console()
    if remedies or task is not None:
        made = _sequence_task(task or TaskName.ADDING, length, data, data_dir, split, limit, side, seed)
        if remedies:
            records: list[Record] = [_remedies(made, hidden, 400 if steps is None else steps, seed, console)]
        else:
            shape = _shape_of(radius, norm)
            records = [*_over_time(model or CELLS, made, hidden, steps or 0, batch, seed, shape)]
    else:
        from assay.data.sources import load_dataset
        from assay.models.loading import load_model
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
        records = _over_depth(network, dataset, model, 30 if steps is None else steps, every, curvature, seed)
    printing.print_records(records, console)
    if out is not None:
        document = {"schema_version": 1, "records": [json.loads(record.model_dump_json()) for record in records]}
        write_atomically(out / "trace.json", json.dumps(document, indent=1) + "\n")
        names = _draw(records, out)
        console.print(f"wrote {out}: {', '.join(['trace.json', *names])}", markup=False, highlight=False)


def _over_depth(
    network: nn.Module, dataset: ImageDataset, name: str, steps: int, every: int, curvature: bool, seed: int
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
        records.append(_train_a_copy(network, dataset, name, steps, every, seed))
    if curvature:
        records.append(measure_curvature(network, dataset, seed=seed))
    return records


def _images_over_time(network: nn.Module, dataset: ImageDataset, name: str) -> list[Record]:
    """A classifier that reads images as sequences is traced over time as well."""
    from torch import nn
    from torch.nn import functional as F

    from assay.data.dataset import to_unit_range
    from assay.diagnostics.batches import spread
    from assay.diagnostics.time import measure_time_trace
    from assay.runtime import device_of

    if not any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in network.modules()):
        return []
    data, device = spread(dataset, 32), device_of(network)
    images, labels = to_unit_range(data.images).to(device), data.labels.to(device)
    return [measure_time_trace(network, images, lambda z: F.cross_entropy(z, labels), label=name, task=dataset.name)]


def _train_a_copy(
    network: nn.Module, dataset: ImageDataset, name: str, steps: int, every: int, seed: int
) -> DepthTrace:
    """``steps`` steps of the one training loop on a copy, with the hooks in."""
    import copy

    from assay.diagnostics.recorder import trace as watch
    from assay.training.loop import fit
    from assay.training.recipes import AugmentOptions, OptimizerOptions, Recipe, ScheduleOptions

    batch_size = min(64, len(dataset))
    recipe = Recipe(
        name="trace",
        epochs=steps * batch_size / len(dataset),
        batch_size=batch_size,
        optimizer=OptimizerOptions(lr=0.01),
        schedule=ScheduleOptions(name="constant"),
        augment=AugmentOptions(name="none"),
    )
    twin = copy.deepcopy(network)
    with watch(twin, every=every, label=name) as watching:
        fit(twin, dataset, recipe=recipe, seed=seed, on_step=lambda _: watching.step())
    return watching.record()


def _shape_of(radius: float | None, norm: float | None) -> tuple[float, float] | None:
    """Spectral radius and norm of the recurrent matrix, both or neither."""
    if radius is None and norm is None:
        return None
    if radius is None or norm is None:
        got = "only --norm" if radius is None else "only --radius"
        raise OptionError("--radius", expected="--radius and --norm together", got=got)
    return radius, norm


def _over_time(
    names: str,
    task: SequenceTask,
    hidden: int,
    steps: int,
    batch: int,
    seed: int,
    shape: tuple[float, float] | None,
) -> Sequence[Record]:
    from assay.data.sequences import TEST
    from assay.diagnostics.time import measure_time_trace
    from assay.models.factories import import_factory
    from assay.models.recurrent_matrix import make_recurrent_matrix
    from assay.models.sequence import build_sequence_model, shape_recurrence
    from assay.remedies import Remedy, train_on

    inputs, targets = task.draw(batch, TEST, 0)
    found = []
    for name in [names] if ":" in names else names.split(","):
        model = (
            import_factory(name)(task.outputs)
            if ":" in name
            else build_sequence_model(
                name.strip(),
                features=task.features,
                outputs=task.outputs,
                length=task.length,
                reads=task.reads,
                hidden=hidden,
                seed=seed,
            )
        )
        if shape is not None:
            radius, norm = shape
            shape_recurrence(model, make_recurrent_matrix(hidden, radius=radius, norm=norm, seed=seed))
        if steps:
            plain = Remedy(name, ())
            train_on(model, task, plain, steps=steps, batch_size=batch, learning_rate=3e-3)
        label = name.strip() + (f" after {steps} steps" if steps else "")
        loss = task.loss
        found.append(
            measure_time_trace(model, inputs, lambda z, loss=loss: loss(z, targets), label=label, task=task.name)  # type: ignore[misc]
        )
    return found


def _remedies(task: SequenceTask, hidden: int, steps: int, seed: int, console: object) -> Record:
    from rich.console import Console

    from assay.cli import trace_printing as printing
    from assay.remedies import compare_remedies

    progress = Console(stderr=True)
    return compare_remedies(
        task, hidden=hidden, steps=steps, seed=seed, on_run=lambda run: printing.print_run(run, progress)
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


def _draw(records: Sequence[Record], out: Path) -> list[str]:
    """Every picture the records have, as SVG and PNG; the names of the files without their ending."""
    from assay.records.depth_trace import DepthTrace
    from assay.records.gradients import InputGradients
    from assay.records.recurrence import TimeTrace
    from assay.records.remedies import RemedyComparison
    from assay.report import trace_charts as charts

    times = [record for record in records if isinstance(record, TimeTrace)]
    drawn = {}
    if times:
        drawn["gradients-over-time"] = charts.gradients_over_time(times)
    if any(record.time_constants for record in times):
        drawn["time-constants"] = charts.forget_time_constants(times)
    for record in records:
        if isinstance(record, DepthTrace):
            drawn["layers-by-steps"] = charts.layers_by_steps(record)
        elif isinstance(record, InputGradients) and record.samples:
            drawn["input-gradients"] = charts.input_gradient_maps(record)
        elif isinstance(record, RemedyComparison):
            drawn["remedies"] = charts.remedies_side_by_side(record)
    for name, chart in drawn.items():
        charts.save_chart(chart, out / f"{name}.svg")
        charts.save_chart(chart, out / f"{name}.png")
    return list(drawn)
