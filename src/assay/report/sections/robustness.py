"""What an attacker achieved: before and after, step by step, and against the size of the change."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from assay.records.attack import AttackSanity, EpsilonCurve, RobustAccuracy
from assay.records.checkup import Checkup
from assay.report.charts import ACCENT, ALARM, SOFT, AnyChart, Row, figure, shares, source, tip
from assay.report.curves import Axes, Series, draw_curves, epsilon_axes
from assay.report.parts import Figure, Part, Section, Table, table, tabulate
from assay.wording import (
    accuracy,
    ball,
    count,
    distance,
    distinct,
    epsilon,
    listed,
    norm,
    number,
    percent,
    plural,
    seconds,
)


def robustness_section(checkup: Checkup) -> Section | None:
    """Every attack and every accuracy-against-epsilon curve."""
    attacks = list(checkup.each(RobustAccuracy))
    curves = list(checkup.each(EpsilonCurve))
    if not attacks and not curves:
        return None
    parts: list[Part] = []
    measured = [curve for curve in curves if curve.points]
    if measured:
        parts += filter(None, [_curves(measured)])
    if attacks:
        parts.append(_before_after(attacks))
        parts += _per_step(attacks)
    outside, unconfirmed = sum(a.outside_ball for a in attacks), sum(a.unconfirmed for a in attacks)
    summary = (
        "Every adversarial image was checked against the ball in double precision and judged again by the untouched "
        f"model before it counted: {count(outside)} lay outside, {count(unconfirmed)} were not confirmed."
    )
    return Section("robustness", "Attacks", summary, tuple(parts), records=(*attacks, *curves))


def attack_title(attack: RobustAccuracy) -> str:
    """``pgd, L∞ 8/255, 20 steps``; for attacks without a ball the size of one step."""
    steps = f", {count(attack.steps)} steps" if attack.steps > 1 else ""
    restarts = f", {count(attack.restarts)} restarts" if attack.restarts > 1 else ""
    return f"{attack.attack}, {ball(attack)}{' a step' if not attack.constrained else ''}{steps}{restarts}"


def _before_after(attacks: Sequence[RobustAccuracy]) -> Figure:
    titles = distinct([attack_title(attack) for attack in attacks], length=60)
    rows: list[Row] = [
        {
            "attack": title,
            "before": attack.clean_correct / attack.n if attack.n else 0.0,
            "after": attack.accuracy,
            "low": attack.low,
            "high": attack.high,
            "tip": f"{title}: {percent(attack.clean_correct / attack.n if attack.n else 0)} before, "
            f"{accuracy(attack)} after",
        }
        for title, attack in zip(titles, attacks, strict=True)
    ]

    def build(width: int) -> AnyChart:
        # names stand above their rows: they are long, and a phone has no room beside them
        axis = alt.Axis(
            grid=False, ticks=False, domain=False, labelLimit=width, labelAlign="left", labelOffset=-17, labelPadding=0
        )
        base = alt.Chart(source(rows)).encode(y=alt.Y("attack:N", sort=None, title=None, axis=axis))
        unit = alt.Scale(domain=[0, 1])
        x = alt.X("after:Q", scale=unit, axis=shares(), title="share right (%)")
        return alt.layer(
            base.mark_rule(color=SOFT, strokeWidth=1.5, opacity=0.6).encode(x=x, x2="before:Q"),
            base.mark_rule(color=ALARM, strokeWidth=7, opacity=0.35, strokeCap="round").encode(
                x=alt.X("low:Q", scale=unit), x2="high:Q", description=tip()
            ),
            base.mark_point(color=ACCENT, filled=False, size=80, strokeWidth=2, opacity=1).encode(
                x="before:Q", description=tip()
            ),
            base.mark_point(color=ALARM, filled=True, size=90, shape="diamond", opacity=1).encode(
                x=x, description=tip()
            ),
        ).properties(width=width - 10, height=alt.Step(46))

    worst = min(attacks, key=lambda attack: attack.accuracy)
    finding = (
        f"{worst.attack} leaves {percent(worst.accuracy)} of "
        f"{percent(worst.clean_correct / worst.n if worst.n else 0)} right"
    )
    columns = (
        "attack",
        ">before",
        ">after (95 % interval, n)",
        ">mean distance",
        ">outside, unconfirmed",
        ">passes",
        ">time",
    )
    numbers = table(
        "Every attack",
        columns,
        tuple(
            (
                title,
                percent(attack.clean_correct / attack.n if attack.n else 0),
                accuracy(attack),
                distance(attack.mean_distance, attack.norm),
                f"{count(attack.outside_ball)}, {count(attack.unconfirmed)}",
                number(attack.forward_equivalents),
                seconds(attack.seconds),
            )
            for title, attack in zip(titles, attacks, strict=True)
        ),
    )
    note = "Ring: before. Diamond: after, on its 95 % interval. Images that were wrong before count as wrong after."
    return figure(build, finding=finding, note=note, table=numbers, full=True)


def _per_step(attacks: Sequence[RobustAccuracy]) -> list[Figure]:
    stepped = [attack for attack in attacks if len(attack.loss_per_step) > 1]
    if not stepped:
        return []
    names = distinct([attack_title(attack) for attack in stepped], length=44)
    longest = max(stepped, key=lambda attack: len(attack.loss_per_step))
    figures = [
        _steps(
            [(name, attack.loss_per_step) for name, attack in zip(names, stepped, strict=True)],
            Axes("step", "mean cross-entropy (nats)"),
            finding=f"{longest.attack} drives the loss from {number(longest.loss_per_step[0])} to "
            f"{number(longest.loss_per_step[-1])} nats",
        )
    ]
    falling = [(n, a.accuracy_per_step) for n, a in zip(names, stepped, strict=True) if len(a.accuracy_per_step) > 1]
    if falling:
        name, values = max(falling, key=lambda pair: len(pair[1]))
        half = next((step for step, share in enumerate(values) if share <= values[0] / 2), None)
        attack = name.partition(",")[0]
        finding = (
            f"{attack} breaks half of the images within {plural(half, 'step')}"
            if half
            else f"{attack} leaves more than half of the images right"
        )
        figures.append(_steps(falling, Axes("step", "share right (%)", y_shares=True), finding=finding))
    return [figure for figure in figures if figure]


def _steps(values: Sequence[tuple[str, Sequence[float]]], axes: Axes, *, finding: str) -> Figure | None:
    steps = max(len(per_step) for _, per_step in values)
    numbers = table(
        axes.y,
        ("step", *(f">{name}" for name, _ in values)),
        tuple(
            (str(step), *(axes.say(per_step[step]) if step < len(per_step) else "" for _, per_step in values))
            for step in range(steps)
        ),
    )
    series = [Series(name, range(len(per_step)), per_step) for name, per_step in values]
    return draw_curves(series, axes, finding=finding, table=numbers)


def _curves(curves: Sequence[EpsilonCurve]) -> Figure | None:
    scale, axes = epsilon_axes({curve.norm for curve in curves}, "share right (%)", y_shares=True)
    names = distinct([f"{curve.attack}, {norm(curve.norm)}, {count(curve.steps)} steps" for curve in curves], length=44)
    series = [
        Series(
            name,
            [point.epsilon * scale for point in curve.points],
            [point.accuracy for point in curve.points],
            [point.low for point in curve.points],
            [point.high for point in curve.points],
            [f"ε = {epsilon(point.epsilon, curve.norm)}: {accuracy(point)}" for point in curve.points],
        )
        for name, curve in zip(names, curves, strict=True)
    ]
    halves = [
        (median * scale, f"half are broken at ε = {distance(median, curve.norm)}")
        for curve in curves
        if (median := curve.median_epsilon) is not None
    ]
    numbers = table(
        "Accuracy against epsilon",
        ("attack", ">ε", ">right (95 % interval, n)"),
        (
            (name, epsilon(point.epsilon, curve.norm), accuracy(point))
            for name, curve in zip(names, curves, strict=True)
            for point in curve.points
        ),
    )
    first = curves[0]
    finding = (
        f"Half of the images are broken by ε = {distance(first.median_epsilon, first.norm)}"
        if first.median_epsilon is not None
        else f"More than half still right at ε = {epsilon(first.points[-1].epsilon, first.norm)}"
    )
    note = "Band: 95 % Wilson interval." + (" Dashed: where half of the images are broken." if halves else "")
    return draw_curves(series, axes, finding=finding, note=note, table=numbers, full=True, marks=halves)


def sanity_section(checkup: Checkup) -> Section | None:
    """Every reason for doubt: its value, its limit, and what it means."""
    records = list(checkup.each(AttackSanity))
    if not records:
        return None
    raised = [check for record in records for check in record.checks if check.raised]
    summary = (
        f"{plural(len(raised), 'doubt')} about the attacks: {listed([check.name for check in raised])}."
        if raised
        else "None of the known reasons to distrust the attacks was found."
    )
    return Section(
        "attack-sanity", "Can the attacks be trusted?", summary, tuple(map(_checks, records)), tuple(records)
    )


def _checks(record: AttackSanity) -> Table:
    order = sorted(record.checks, key=lambda check: (not check.raised, check.value is None))
    return tabulate(
        f"{ball(record)}, {plural(record.n, 'sample')}",
        order,
        {
            "doubt": lambda check: check.name,
            "": lambda check: "! raised" if check.raised else "– not run" if check.value is None else "✓ not raised",
            ">value": lambda check: number(check.value),
            ">limit": lambda check: number(check.limit),
            "¶what was seen": lambda check: check.detail,
        },
    )
