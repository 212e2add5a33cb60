"""Remedies for vanishing and exploding gradients, with and without."""

from __future__ import annotations

from assay.records.checkup import Checkup
from assay.records.remedies import RemedyComparison, RemedyRun
from assay.report.curves import Axes, Series, draw_curves
from assay.report.parts import NUMBER, Column, Figure, Part, Section, Table
from assay.report.wording import count, distinct, listed, number, seconds


def remedies_section(checkup: Checkup) -> Section | None:
    """What each remedy did, and the gradients it leaves."""
    comparisons = list(checkup.each(RemedyComparison))
    if not comparisons:
        return None
    parts: list[Part] = []
    for comparison in comparisons:
        effects = Table(
            "What each remedy did",
            (Column("remedy"), Column("against"), Column("verdict"), Column("because")),
            tuple((effect.remedy, effect.problem, effect.verdict, effect.because) for effect in comparison.effects),
        )
        problems = tuple(dict.fromkeys(run.problem for run in comparison.runs))
        figures = [_gradients([run for run in comparison.runs if run.problem == problem]) for problem in problems]
        parts += [effects, *filter(None, figures), _runs(comparison)]
    summary = " ".join(
        f"{one.task}: length {count(one.length)}, {count(one.hidden)} hidden units, {count(one.steps)} steps of "
        f"{count(one.batch_size)}, learning rate {number(one.learning_rate)}, seed {one.seed}; a constant answer loses "
        f"{number(one.baseline)}. {seconds(one.seconds)}."
        for one in comparisons
    )
    return Section("remedies", "Remedies", summary, tuple(parts), records=tuple(comparisons))


def _gradients(runs: list[RemedyRun]) -> Figure | None:
    names = distinct([f"{run.remedy}, {run.cell}" for run in runs])
    series = [
        Series(name, range(len(run.norms_before)), run.norms_before) for name, run in zip(names, runs, strict=True)
    ]
    effective = [name for name, run in zip(names, runs, strict=True) if run.loss < runs[0].loss]
    verb = "lowers" if len(effective) == 1 else "lower"
    against = f"Against {runs[0].problem} gradients"
    finding = (
        f"{against} {listed(effective[:3])} {verb} the loss" if effective else f"{against} nothing lowers the loss"
    )
    note = "Before training, by time step; the loss is at the right end."
    return draw_curves(series, Axes("time step", "‖∂L/∂z‖₂", y_log=True), finding=finding, note=note)


def _runs(comparison: RemedyComparison) -> Table:
    titles = ("loss", "lowest", "rate before", "rate after", "horizon after", "largest gradient", "median", "time")
    return Table(
        "Every run",
        (Column("remedy"), Column("against"), Column("cell"), *(Column(title, NUMBER) for title in titles)),
        tuple(
            (
                run.remedy,
                run.problem,
                run.cell,
                number(run.loss) + (f" (diverged at step {run.diverged_at})" if run.diverged_at is not None else ""),
                number(run.lowest_loss),
                number(run.rate_before),
                number(run.rate_after),
                number(run.horizon_after),
                number(run.largest_gradient),
                number(run.median_gradient),
                seconds(run.seconds),
            )
            for run in comparison.runs
        ),
        folded=True,
    )
