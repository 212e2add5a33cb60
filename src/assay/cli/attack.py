"""``assay attack``: how little change breaks the model, and how fast the loss climbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import arguments as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.records.attack import EpsilonCurve, RobustAccuracy


def attack(
    model: arg.Model,
    data: Annotated[str, typer.Option(help="The images to attack: digits, cifar10, a folder, *.parquet, *.npz, …")],
    weights: arg.Weights = None,
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    limit: arg.Limit = None,
    name: Annotated[str, typer.Option("--attack", help="Which attack; an unknown name lists them all.")] = "pgd",
    norm: Annotated[str, typer.Option(help="The size of a change: linf, l2 or l1.")] = "linf",
    epsilon: Annotated[str, typer.Option(help="The largest change, in pixels of [0, 1]: 8/255 or 0.031.")] = "8/255",
    steps: Annotated[int | None, typer.Option(help="Steps of an attack that takes them.", show_default=False)] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Length of a step, in pixels of [0, 1]: 2/255.", show_default=False)
    ] = None,
    restarts: Annotated[
        int | None, typer.Option(help="Runs from different starting points.", show_default=False)
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="What to climb: ce, margin, dlr or probability-margin.", show_default=False)
    ] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Also measure accuracy against epsilon.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the records to this file.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images under attack at one time.")] = 256,
    normalization: arg.Normalization = None,
    image_size: arg.ImageSize = None,
    max_bad: arg.MaxBad = 0,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
) -> None:
    """Attack a model and say what is left of its accuracy.

    Every success is clipped, checked against the ball in float64, and judged again by the untouched model.
    """
    from rich.console import Console

    from assay.attacks import find_attack, measure_epsilon_curve, measure_robust_accuracy
    from assay.attacks.threat import Threat
    from assay.data.sources import load_dataset
    from assay.files import write_atomically
    from assay.models.loading import load_model
    from assay.runtime import choose_device

    given: dict[str, Any] = {"steps": steps, "restarts": restarts, "loss": loss}
    given["step_size"] = None if step_size is None else parse_fraction(step_size, where="--step-size")
    options = find_attack(name, {key: value for key, value in given.items() if value is not None})
    threat = Threat(norm=norm, epsilon=parse_fraction(epsilon, where="--epsilon"))  # type: ignore[arg-type]
    target = choose_device(device)
    dataset = load_dataset(data, split=split, data_dir=data_dir, limit=limit, max_bad=max_bad, image_size=image_size)
    network = load_model(
        model,
        weights=weights,
        classes=len(dataset.classes),
        image_shape=dataset.shape,
        normalization=normalization,
    ).to(target)
    with AttackProgress(Console(stderr=True)) as progress:
        measured = measure_robust_accuracy(
            network,
            dataset,
            attack=options,
            norm=threat.norm,
            epsilon=threat.epsilon,
            seed=seed,
            batch_size=batch_size,
            on_step=progress.show,
        )
    records: list[RobustAccuracy | EpsilonCurve] = [measured.record]
    console = Console()
    for note in measured.outcome.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    print_attack(measured.record, console)
    if curve:
        records.append(
            measure_epsilon_curve(network, dataset, attack=options, norm=threat.norm, seed=seed, batch_size=batch_size)
        )
        print_curve(records[-1], console)  # type: ignore[arg-type]
    if json_file is not None:
        write_atomically(json_file, "[" + ",\n".join(record.model_dump_json(indent=1) for record in records) + "]\n")


def parse_fraction(text: str, *, where: str) -> float:
    """``8/255`` or ``0.031`` as a float; :class:`OptionError` otherwise."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / (float(bottom) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise OptionError(where, expected="a number or a fraction such as 8/255", got=repr(text)) from None


def print_attack(record: RobustAccuracy, console: Console) -> None:
    """What was attacked, what is left, and the loss after each step."""
    from rich.table import Table

    clean = record.clean_correct / record.n
    size = _as_fraction(record.epsilon)
    ball = f"within {record.norm} {size}" if record.constrained else f"{record.norm} steps of {size}, no projection"
    console.print(f"[bold]{record.attack}[/bold]  {ball}, seed {record.seed}, n = {record.n:,}")
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("clean accuracy", f"{100 * clean:.2f} %", f"{record.clean_correct:,} of {record.n:,}")
    table.add_row(
        "after the attack",
        f"[bold]{100 * record.accuracy:.2f} %[/bold]",
        f"{record.correct:,} of {record.n:,}, 95 % interval {100 * record.low:.2f} to {100 * record.high:.2f} %",
    )
    if record.correct_after_rounding is not None:
        rounded = record.correct_after_rounding / record.n
        table.add_row("rounded to 8 bits", f"{100 * rounded:.2f} %", "the same images as a file would store them")
    table.add_row("mean distance", f"{record.mean_distance:.4g}", f"{record.norm}, of the images that broke")
    table.add_row("cost", f"{record.forward_equivalents:.1f}", f"passes an image, {record.seconds:.1f} s")
    console.print(table)
    if record.outside_ball or record.unconfirmed:
        console.print(
            f"not counted: {record.outside_ball} outside the ball, {record.unconfirmed} not confirmed", style="yellow"
        )
    if len(record.loss_per_step) > 1:
        _print_steps(record, console)


def _print_steps(record: RobustAccuracy, console: Console, *, rows: int = 12) -> None:
    from rich.table import Table

    count = len(record.loss_per_step)
    shown = sorted({round(k * (count - 1) / (min(rows, count) - 1)) for k in range(min(rows, count))})
    most = max(record.loss_per_step) or 1.0
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("step", "mean loss", "accuracy"):
        table.add_column(title, justify="right")
    table.add_column("")
    for k in shown:
        loss = record.loss_per_step[k]
        bar = "█" * max(0, round(30 * loss / most))
        table.add_row(str(k), f"{loss:.3f}", f"{100 * record.accuracy_per_step[k]:.1f} %", f"[red]{bar}[/red]")
    console.print(table)


def print_curve(curve: EpsilonCurve, console: Console) -> None:
    """Accuracy at each epsilon, and the size that breaks half of the images."""
    from rich.table import Table

    table = Table(
        title=f"accuracy against epsilon ({curve.norm})", box=None, padding=(0, 2, 0, 0), title_justify="left"
    )
    table.add_column("epsilon", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("")
    for point in curve.points:
        bar = "█" * round(30 * point.accuracy)
        table.add_row(_as_fraction(point.epsilon), f"{100 * point.accuracy:.2f} %", f"[green]{bar}[/green]")
    console.print(table)
    if curve.median_epsilon is not None:
        console.print(f"half of the images are broken at {_as_fraction(curve.median_epsilon)}")


def _as_fraction(epsilon: float) -> str:
    levels = epsilon * 255
    return f"{levels:.4g}/255" if abs(levels - round(levels, 2)) < 1e-6 else f"{epsilon:.4g}"


class AttackProgress:
    """One line on standard error: the method that runs and how many samples it has settled; a context manager."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> AttackProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, method: str, left: int, total: int) -> None:
        """``left`` of ``total`` samples still stand against ``method``."""
        self._bar.update(self._task, description=method, completed=total - left, total=total)
