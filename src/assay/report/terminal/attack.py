"""What ``assay attack`` prints: the result, the loss after each step, the curve, and doubts about the attack itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from assay.records.attack import AttackAnatomy, AttackSanity, EpsilonCurve, RobustAccuracy
    from assay.records.finding import Verdict


def print_attack(record: RobustAccuracy, console: Console, *, notes: Sequence[str] = ()) -> None:
    """What has to be said first, what was attacked, what is left, and the loss after each step."""
    from rich.markup import escape
    from rich.table import Table

    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    clean = record.clean_correct / record.n
    size = wording.epsilon(record.epsilon, record.norm)
    norm = wording.norm(record.norm)
    limit = f"within {norm} {size}" if record.constrained else f"{norm} steps of {size}, no projection"
    if record.target is not None:
        limit += f", into {record.target}"
    console.print(f"[bold]{escape(record.attack)}[/bold]  {escape(limit)}, seed {record.seed}, n = {record.n:,}")
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
    table.add_row(
        "mean distance", wording.distance(record.mean_distance, record.norm), f"{norm}, of the images that broke"
    )
    table.add_row(
        "cost", f"{record.forward_equivalents:.1f}", f"passes an image in {record.precision}, {record.seconds:.1f} s"
    )
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


def print_anatomy(anatomy: AttackAnatomy, console: Console, *, pairs: int = 5) -> None:
    """What the broken images turned into, and how visible the change is."""
    turned = ", ".join(f"{t.before} → {t.after} {t.count}" for t in anatomy.transitions[:pairs])
    rest = sum(t.count for t in anatomy.transitions[pairs:])
    console.print(f"turned into: {turned}" + (f", others {rest}" if rest else ""), markup=False, highlight=False)
    if anatomy.median_psnr is not None and anatomy.median_ssim is not None:
        seen = f"{anatomy.median_psnr:.1f} dB, structural similarity {anatomy.median_ssim:.3f}"
        console.print(f"how visible: peak signal-to-noise ratio {seen} (medians)", highlight=False)


def print_curve(curve: EpsilonCurve, console: Console) -> None:
    """Accuracy at each epsilon, and the size that breaks half of the images."""
    from rich.table import Table

    title = f"accuracy against epsilon ({wording.norm(curve.norm)})"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("epsilon", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("")
    for point in curve.points:
        bar = "█" * round(30 * point.accuracy)
        size = wording.epsilon(point.epsilon, curve.norm)
        table.add_row(size, f"{100 * point.accuracy:.2f} %", f"[green]{bar}[/green]")
    console.print(table)
    if curve.median_epsilon is not None:
        console.print(f"half of the images are broken at {wording.distance(curve.median_epsilon, curve.norm)}")


def print_sanity(sanity: AttackSanity, verdicts: Sequence[Verdict], console: Console) -> None:
    """Each doubt that stands, with its rule and its fix; one line when there is none."""
    doubts = [verdict for verdict in verdicts if verdict.status in {"warn", "error"}]
    ran = sum(verdict.status != "not run" for verdict in verdicts)
    if not doubts:
        console.print(f"[green]✓[/green] {ran} checks of the attack itself raise no doubt (n = {sanity.n})")
        return
    console.print(f"{len(doubts)} of {ran} checks of the attack itself raise a doubt (n = {sanity.n}):")
    for verdict in doubts:
        colour = "red" if verdict.status == "error" else "yellow"
        console.print(f"[{colour}]{verdict.rule}[/{colour}] not so: {verdict.claim}", highlight=False)
        console.print(f"      {verdict.measured}\n      {verdict.fix}", style="dim", markup=False, highlight=False)


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
