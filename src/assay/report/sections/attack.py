"""What an attack did beyond how much it broke: how fast, into which classes, and how visibly."""

from __future__ import annotations

import altair as alt

from assay.records.attack import AttackAnatomy
from assay.records.checkup import Checkup
from assay.report.charts import ALARM, AnyChart, Row, figure, source, tip
from assay.report.curves import Axes, Series, draw_curves
from assay.report.parts import Facts, Figure, Part, Section, table, tabulate
from assay.wording import ball, clip, count, distinct, number, plural

_MOST_PAIRS = 12


def attack_anatomy_section(checkup: Checkup) -> Section | None:
    """One chapter for every attack that was taken apart."""
    records = [record for record in checkup.each(AttackAnatomy) if record.broken or record.loss_quantiles]
    if not records:
        return None
    parts: list[Part] = []
    for record in records:
        drawn = (_losses(record), _transitions(record), _visibility(record))
        parts += [part for part in drawn if part is not None]
    names = ", ".join(f"{r.attack} within {ball(r)}" for r in records)
    summary = f"{names}: how the loss climbs, what broken images turn into, and how visible the change is."
    return Section("attack-anatomy", "What the attack does", summary, tuple(parts), records=tuple(records))


def _losses(record: AttackAnatomy) -> Figure | None:
    steps = range(len(record.loss_quantiles))
    if len(steps) < 2:
        return None
    names = ["median" if level == 0.5 else f"{100 * level:.0f} % lie below" for level in record.quantile_levels]
    curves = [
        Series(name, [float(step) for step in steps], [found[place] for found in record.loss_quantiles])
        for place, name in enumerate(names)
    ]
    numbers = table(
        "Loss after each step",
        (">step", *(f">{name}" for name in names)),
        tuple((str(step), *map(number, record.loss_quantiles[step])) for step in steps),
        folded=True,
    )
    middle = names.index("median") if "median" in names else 0
    first, last = (record.loss_quantiles[place][middle] for place in (0, -1))
    return draw_curves(
        curves,
        Axes("step", "cross-entropy (nats)"),
        finding=f"Half of the images have a loss above {number(last)} in the end, from {number(first)}",
        note="Broken images keep the loss at which they broke: the attack leaves them there.",
        table=numbers,
    )


def _transitions(record: AttackAnatomy) -> Figure | None:
    if not record.transitions:
        return None
    pairs = [f"{clip(pair.before, 18)} → {clip(pair.after, 18)}" for pair in record.transitions]
    shown = distinct(pairs[:_MOST_PAIRS], length=40)
    rows: list[Row] = [
        {"pair": name, "count": float(pair.count), "tip": f"{name}: {plural(pair.count, 'image')}"}
        for name, pair in zip(shown, record.transitions, strict=False)
    ]

    def build(width: int) -> AnyChart:
        room = min(width // 2, 7 * max(map(len, shown)) + 16)  # two names and an arrow take more than most
        axis = alt.Axis(grid=False, ticks=False, domain=False, labelLimit=room)
        chart: alt.Chart = (
            alt.Chart(source(rows))
            .mark_bar(color=ALARM, height=11)
            .encode(
                y=alt.Y("pair:N", sort=None, title=None, axis=axis),
                x=alt.X("count:Q", title="images", axis=alt.Axis(format="d", tickMinStep=1, tickCount=4)),
                description=tip(),
            )
            .properties(width=max(60, width - room - 25), height=alt.Step(20))
        )
        return chart

    numbers = tabulate(
        "Every pair of classes",
        record.transitions,
        {
            "before": lambda pair: pair.before,
            "after": lambda pair: pair.after,
            ">images": lambda pair: count(pair.count),
        },
        folded=True,
    )
    most = record.transitions[0]
    share = f"{count(most.count)} of {count(record.broken)} broken"
    return figure(
        build,
        finding=f"{most.before} turns into {most.after} most often: {share}",
        note=f"The {len(shown)} most frequent of {plural(len(pairs), 'pair')}." if len(pairs) > len(shown) else "",
        table=numbers,
    )


def _visibility(record: AttackAnatomy) -> Facts | None:
    if record.median_psnr is None or record.median_ssim is None or record.lowest_ssim is None:
        return None
    return Facts(
        (
            ("images broken", count(record.broken)),
            ("peak signal-to-noise ratio, median", f"{record.median_psnr:.1f} dB"),
            ("structural similarity, median (1 is identical)", f"{record.median_ssim:.3f}"),
            ("structural similarity of the most visible one", f"{record.lowest_ssim:.3f}"),
        )
    )
