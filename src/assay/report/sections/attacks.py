"""Robustness: accuracy before and after attacks, per step, against ε, and whether the attacks can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.attack import AttackAnatomy, AttackSanity, EpsilonCurve, RobustAccuracy
from assay.records.checkup import Checkup
from assay.report.charts import Item, draw_items, figure
from assay.report.curves import Axes, Series, draw_curves, epsilon_axes
from assay.report.parts import FEW_ROWS, Facts, Figure, Section, Table, build_section, table, tabulate
from assay.report.sections.class_pairs import ClassPair, draw_pairs
from assay.wording import (
    accuracy,
    ball,
    count,
    distance,
    distinct,
    epsilon,
    listed,
    name_classes,
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
    parts = [_curves([curve for curve in curves if curve.points])]
    if attacks:
        parts += [_before_after(attacks), *draw_steps(attacks)]
    outside, unconfirmed = sum(a.outside_ball for a in attacks), sum(a.unconfirmed for a in attacks)
    summary = (
        "Every adversarial example was checked against the ball in double precision and verified by the original model "
        f"before it counted: {count(outside)} lay outside, {count(unconfirmed)} were not confirmed."
    )
    return build_section("robustness", "Attacks", summary, *parts, records=[*attacks, *curves])


def attack_title(attack: RobustAccuracy) -> str:
    """``pgd, L∞ 8/255, 20 steps``; for attacks without a ball the size of one step."""
    steps = f", {count(attack.steps)} steps" if attack.steps > 1 else ""
    restarts = f", {count(attack.restarts)} restarts" if attack.restarts > 1 else ""
    return f"{attack.attack}, {ball(attack)}{' a step' if not attack.constrained else ''}{steps}{restarts}"


def _before_after(attacks: Sequence[RobustAccuracy]) -> Figure:
    titles = distinct([attack_title(attack) for attack in attacks], length=60)
    clean = [attack.clean_correct / attack.n if attack.n else 0.0 for attack in attacks]
    items = []
    for title, before, attack in zip(titles, clean, attacks, strict=True):
        text = f"{title}: {percent(before)} before, {accuracy(attack)} after"
        items.append(Item(title, attack.accuracy, text, attack.low, attack.high, before))
    build = draw_items(items, "accuracy (%)", step=46, above=True)
    before, worst = min(zip(clean, attacks, strict=True), key=lambda pair: pair[1].accuracy)
    finding = f"Under {worst.attack} the accuracy falls from {percent(before)} to {percent(worst.accuracy)}"
    numbers = tabulate(
        "Every attack",
        tuple(zip(titles, clean, attacks, strict=True)),
        {
            "attack": lambda row: row[0],
            ">clean accuracy": lambda row: percent(row[1]),
            ">robust accuracy (95 % interval, n)": lambda row: accuracy(row[2]),
            ">mean distance": lambda row: distance(row[2].mean_distance, row[2].norm),
            ">outside, unconfirmed": lambda row: f"{count(row[2].outside_ball)}, {count(row[2].unconfirmed)}",
            ">forward passes": lambda row: number(row[2].forward_equivalents),
            ">time": lambda row: seconds(row[2].seconds),
        },
    )
    note = "Ring: clean accuracy. Diamond: robust accuracy, on its 95 % interval."
    return figure(build, finding=finding, note=note, table=numbers, full=True)


def draw_steps(attacks: Sequence[RobustAccuracy]) -> list[Figure | None]:
    """The mean loss and, where it was followed, the accuracy after each step."""
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
            f"{attack} misclassifies half of the images within {plural(half, 'step')}"
            if half
            else f"{attack} leaves more than half of the images correct"
        )
        figures.append(_steps(falling, Axes("step", "accuracy (%)", y_shares=True), finding=finding))
    return figures


def _steps(values: Sequence[tuple[str, Sequence[float]]], axes: Axes, *, finding: str) -> Figure | None:
    steps = max(len(per_step) for _, per_step in values)
    rows = (
        (str(step), *(axes.format(per_step[step]) if step < len(per_step) else "" for _, per_step in values))
        for step in range(steps)
    )
    numbers = table(axes.y, ("step", *(f">{name}" for name, _ in values)), rows)
    series = [Series(name, range(len(per_step)), per_step) for name, per_step in values]
    return draw_curves(series, axes, finding=finding, table=numbers)


def _curves(curves: Sequence[EpsilonCurve]) -> Figure | None:
    if not curves:
        return None
    scale, axes = epsilon_axes({curve.norm for curve in curves}, "accuracy (%)", y_shares=True)
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
        (median * scale, f"half are misclassified at ε = {distance(median, curve.norm)}")
        for curve in curves
        if (median := curve.median_epsilon) is not None and curve.points[0].n > 1
    ]
    numbers = table(
        "Accuracy against epsilon",
        ("attack", ">ε", ">accuracy (95 % interval, n)"),
        (
            (name, epsilon(point.epsilon, curve.norm), accuracy(point))
            for name, curve in zip(names, curves, strict=True)
            for point in curve.points
        ),
    )
    finding = _turning_point(curves[0])
    note = "Band: 95 % Wilson interval." + (" Dashed: where half of the images are misclassified." if halves else "")
    return draw_curves(series, axes, finding=finding, note=note, table=numbers, full=True, marks=halves)


def _turning_point(curve: EpsilonCurve) -> str:
    """Where half of the images are misclassified; of one image, where it is."""
    one, median, last = curve.points[0].n == 1, curve.median_epsilon, curve.points[-1].epsilon
    if median is not None:
        which = "The one image is" if one else "Half of the images are"
        return f"{which} misclassified at ε = {distance(median, curve.norm)}"
    which = "The one image is" if one else "More than half are"
    return f"{which} still correct at ε = {epsilon(last, curve.norm)}"


def sanity_section(records: Sequence[AttackSanity]) -> Section:
    raised = [check for record in records for check in record.checks if check.raised]
    summary = (
        f"{plural(len(raised), 'check')} of the attacks raised: {listed([check.name for check in raised])}."
        if raised
        else "No sign of gradient masking or of another reason to distrust the attacks."
    )
    return Section("attack-sanity", "Sanity of the attacks", summary, tuple(map(_checks, records)), tuple(records))


def _checks(record: AttackSanity) -> Table:
    order = sorted(record.checks, key=lambda check: (not check.raised, check.value is None))
    return tabulate(
        f"{ball(record)}, {plural(record.n, 'sample')}",
        order,
        {
            "check": lambda check: check.name,
            "": lambda check: "! raised" if check.raised else "– not run" if check.value is None else "✓ not raised",
            ">value": lambda check: number(check.value),
            ">limit": lambda check: number(check.limit),
            "¶what was seen": lambda check: check.detail,
        },
    )


_MOST_PAIRS = 12


def attack_anatomy_section(records: Sequence[AttackAnatomy]) -> Section | None:
    records = [record for record in records if record.broken or record.loss_quantiles]
    if not records:
        return None
    parts = [draw(record) for record in records for draw in (_losses, _transitions, _visibility)]
    names = ", ".join(f"{r.attack} within {ball(r)}" for r in records)
    summary = f"{names}: how the loss climbs, what broken images turn into, and how visible the change is."
    return build_section("attack-anatomy", "What the attack does", summary, *parts, records=records)


def _losses(record: AttackAnatomy) -> Figure | None:
    steps = range(len(record.loss_quantiles))
    if len(steps) < 2:
        return None
    names = ["median" if level == 0.5 else f"{100 * level:.0f} % lie below" for level in record.quantile_levels]
    curves = [
        Series(name, [float(step) for step in steps], [quantiles[place] for quantiles in record.loss_quantiles])
        for place, name in enumerate(names)
    ]
    rows = ((str(step), *map(number, quantiles)) for step, quantiles in enumerate(record.loss_quantiles))
    numbers = table("Loss after each step", (">step", *(f">{name}" for name in names)), rows, folded=True)
    middle = names.index("median") if "median" in names else 0
    first, last = (record.loss_quantiles[place][middle] for place in (0, -1))
    finding = f"Half of the images have a loss above {number(last)} in the end, from {number(first)}"
    note = "A misclassified image keeps its loss: the attack stops there."
    return draw_curves(curves, Axes("step", "cross-entropy (nats)"), finding=finding, note=note, table=numbers)


def _transitions(record: AttackAnatomy) -> Figure | None:
    if not record.transitions:
        return None
    names = name_classes(name for pair in record.transitions for name in (pair.before, pair.after))
    numbers = tabulate(
        "Every pair of classes",
        record.transitions,
        {
            "before": lambda pair: names[pair.before],
            "after": lambda pair: names[pair.after],
            ">images": lambda pair: count(pair.count),
        },
        folded=True,
        search="Find a class" if len(names) > FEW_ROWS else "",
    )
    pairs = [
        ClassPair(before, after, pair.count, f"{before} → {after}: {plural(pair.count, 'image')}")
        for pair in record.transitions[:_MOST_PAIRS]
        for before, after in [(names[pair.before], names[pair.after])]
    ]
    most, total = pairs[0], len(record.transitions)
    finding = f"{most.before} turns into {most.after} most often: {count(most.images)} of {count(record.broken)} broken"
    note = f"The {len(pairs)} most frequent of {plural(total, 'pair')}." if total > len(pairs) else ""
    return draw_pairs(pairs, finding=finding, note=note, table=numbers, name_length=18)


def _visibility(record: AttackAnatomy) -> Facts | None:
    if record.median_psnr is None or record.median_ssim is None or record.lowest_ssim is None:
        return None
    middle = ", median" if record.broken > 1 else ""  # one image has none
    return Facts(
        (
            ("images broken", count(record.broken)),
            (f"peak signal-to-noise ratio{middle}", f"{record.median_psnr:.1f} dB"),
            (f"structural similarity{middle} (1 is identical)", f"{record.median_ssim:.3f}"),
            ("structural similarity of the most visible one", f"{record.lowest_ssim:.3f}"),
        )
    )
