"""Accuracy against ε in two checks, and the difference."""

from __future__ import annotations

import altair as alt

from assay.records.comparison import Comparison, CurveDifference, Versus
from assay.report import comparison_wording as say
from assay.report.drawing import ACCENT, ALARM, SOFT, AnyChart, Row, colours, figure, shapes, shares, source, tip
from assay.report.parts import NUMBER, Column, Figure, Part, Section, Table
from assay.report.wording import NORMS, clip, count, distinct, epsilon, percent, plural


def curves_section(comparison: Comparison) -> Section | None:
    """For each pair of curves: both, and their difference with its band."""
    parts: list[Part] = []
    for versus in comparison.versus:
        for curve in versus.curves:
            parts += [_levels(curve, comparison.reference.name, versus), _gap(curve, versus)]
    if not parts:
        return None
    summary = (
        f"Bands are pointwise 95 % intervals of the difference from {count(comparison.resamples)} bootstrap draws over "
        "samples. The curve as a whole is judged by one number, the mean accuracy over ε, not point by point."
    )
    return Section("curves", "Accuracy against ε", summary, tuple(parts))


def _levels(curve: CurveDifference, reference: str, versus: Versus) -> Figure:
    names = distinct([reference, versus.candidate], length=44)
    unit = 255 if curve.norm == "linf" else 1
    rows: list[Row] = [
        {"series": name, "epsilon": point.epsilon * unit, "accuracy": value,
         "tip": f"{name}, ε = {epsilon(point.epsilon, curve.norm)}: {percent(value)}"}
        for point in curve.points
        for name, value in zip(names, (point.reference, point.candidate), strict=True)
    ]  # fmt: skip

    def build(width: int) -> AnyChart:
        base = alt.Chart(source(rows)).encode(
            x=alt.X("epsilon:Q", title=_axis(curve), axis=alt.Axis(grid=False, tickCount=6)),
            y=alt.Y("accuracy:Q", title="share right (%)", axis=shares(), scale=alt.Scale(domain=[0, 1])),
            color=colours(names),
        )
        return alt.layer(
            base.mark_line(strokeWidth=2.5),
            base.mark_point(filled=True, size=55, opacity=1).encode(shape=shapes(names), description=tip()),
        ).properties(width=width - 55, height=240)

    halves = [
        "more than the last ε" if half is None else f"{half * 255:.2g}/255" if curve.norm == "linf" else f"{half:.3g}"
        for half in (curve.median_reference, curve.median_candidate)
    ]
    finding = f"Half of the images break at ε = {halves[1]}; in the reference at {halves[0]}"
    note = f"{curve.attack}, {NORMS[curve.norm]}, {plural(curve.steps, 'step')}."
    return figure(build, finding=finding, note=note, legend=names)


def _gap(curve: CurveDifference, versus: Versus) -> Figure:
    unit = 255 if curve.norm == "linf" else 1
    rows: list[Row] = [
        {"epsilon": point.epsilon * unit, "difference": point.difference * 100, "low": point.low * 100,
         "high": point.high * 100,
         "tip": f"ε = {epsilon(point.epsilon, curve.norm)}: {say.points(point.difference)} points "
         f"({say.points(point.low)} to {say.points(point.high)})"}
        for point in curve.points
    ]  # fmt: skip

    def build(width: int) -> AnyChart:
        base = alt.Chart(source(rows)).encode(
            x=alt.X("epsilon:Q", title=_axis(curve), axis=alt.Axis(grid=False, tickCount=6))
        )
        y = alt.Y("difference:Q", title="difference (points)", axis=alt.Axis(tickCount=5))
        zero = alt.Chart(source([{"at": 0.0}])).mark_rule(color=SOFT, strokeWidth=1.5).encode(y="at:Q")
        return alt.layer(
            base.mark_area(color=ACCENT, opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q"),
            zero,
            base.mark_line(color=ACCENT, strokeWidth=2).encode(y=y),
            base.mark_point(color=ALARM, filled=True, size=55, opacity=1).encode(y=y, description=tip()),
        ).properties(width=width - 55, height=240)

    largest = max(curve.points, key=lambda point: abs(point.difference))
    finding = (
        f"{clip(versus.candidate, 40)} differs most at ε = {epsilon(largest.epsilon, curve.norm)}: "
        f"{say.points(largest.difference)} points"
    )
    table = Table(
        "Accuracy against ε, both",
        tuple(Column(name, NUMBER) for name in ("ε", "reference", "candidate", "difference", "95 % interval")),
        tuple(
            (epsilon(p.epsilon, curve.norm), percent(p.reference), percent(p.candidate), say.points(p.difference),
             f"{say.points(p.low)} to {say.points(p.high)}")
            for p in curve.points
        ),
    )  # fmt: skip
    return figure(build, finding=finding, note="Band: 95 % bootstrap interval.", table=table)


def _axis(curve: CurveDifference) -> str:
    return "ε (grey levels of 255)" if curve.norm == "linf" else "ε, the size of the change"
