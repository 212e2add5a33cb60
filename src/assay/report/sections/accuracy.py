"""Accuracy: per class, confusion, calibration, and under image operations."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from assay.records.accuracy import ClassAccuracy, CleanAccuracy, Invariance, OperationAccuracy
from assay.report.charts import (
    ACCENT,
    ALARM,
    INK,
    SOFT,
    AnyChart,
    Item,
    Row,
    draw_items,
    figure,
    shares,
    side,
    source,
    tip,
)
from assay.report.parts import Figure, Part, Section, Table, build_section, table, tabulate
from assay.report.sections.class_pairs import ClassPair, draw_pairs
from assay.wording import accuracy, class_names, count, magnitude, number, percent, plural, seconds

MOST_CLASSES = 30
MOST_PAIRS = 25
MOST_ROWS = 1_000  # of a table that is searched


def accuracy_section(clean: CleanAccuracy) -> Section:
    names = class_names([group.name for group in clean.per_class])
    square = {len(names)} == {len(clean.confusion), *map(len, clean.confusion)}
    scores = (
        f" Mean cross-entropy {number(clean.loss)} nats, mean "
        f"confidence {percent(clean.mean_confidence)}, expected calibration error "
        f"{percent(clean.expected_calibration_error)}"
        + (f", top-5 accuracy {percent(clean.top5_accuracy)}" if clean.top5_accuracy is not None else "")
        + "."
        if clean.scored
        else " Only the predicted classes are known: no confidence, no loss."
    )
    summary = f"Accuracy {accuracy(clean)} on the images as they are.{scores}" + (
        f" {count(clean.non_finite)} outputs were not finite and count as wrong." if clean.non_finite else ""
    )
    calibration = _calibration(clean) if clean.scored else None
    parts = (_per_class(clean, names), calibration, _confusion(clean, names) if square else None)
    return build_section("accuracy", "Clean accuracy", summary, *parts, records=[clean])


def _per_class(clean: CleanAccuracy, names: list[str]) -> Figure:
    pairs = zip(names, clean.per_class, strict=True)
    # where accuracies are equal, those of which more is known stand at the ends
    seen = sorted(
        ((name, group) for name, group in pairs if group.n),
        key=lambda pair: (pair[1].accuracy, sum(_ends(pair[1]))),
    )
    together = all(group.simultaneous_low is not None for _, group in seen)
    numbers = table(
        "Accuracy of each class, worst first",
        ("class", ">right", ">95 % interval", *([">of all classes at once"] if together else []), ">n"),
        (
            (name, percent(group.accuracy), _range(group.low, group.high),
             *([_range(*_ends(group))] if together else []), count(group.n))
            for name, group in seen
        ),
        search="Find a class",
        most=MOST_ROWS,
    )  # fmt: skip
    drawn = seen if len(seen) <= MOST_CLASSES else [*seen[: MOST_CLASSES - 5], *seen[-5:]]
    items = [
        Item(name, group.accuracy, f"{name}: {percent(group.accuracy)} ({_range(*_ends(group))}, n = {count(group.n)})",
             *_ends(group))
        for name, group in drawn
    ]  # fmt: skip
    mean = (clean.accuracy, f"all classes: {accuracy(clean)}")
    build = draw_items(items, "accuracy, with its 95 % interval (%)", domain=None, reference=mean, step=24)
    finding = "No class has a sample"
    if seen:
        name, worst = seen[0]
        finding = f"{name} is hardest: {percent(worst.accuracy)} correct, {percent(clean.accuracy)} over all classes"
    note = "Dot: accuracy (recall) of the class. Bar: 95 % Wilson interval. Dashed: all classes together."
    if together:
        below = sum(_ends(group)[1] < clean.accuracy for _, group in seen)
        note = (
            "Dot: accuracy (recall) of the class. Bar: 95 % interval that allows for having picked the class among "
            f"{len(seen)}. Dashed: all classes together; {count(below) if below else 'none'} of {count(len(seen))} "
            f"{'lies' if below == 1 else 'lie'} below it beyond chance."
        )
    if len(drawn) < len(seen):
        note += f" Shown: the {MOST_CLASSES - 5} worst and the 5 best of {count(len(seen))} classes."
    return figure(build, finding=finding, note=note, table=numbers)


def _ends(group: ClassAccuracy) -> tuple[float, float]:
    """Of the interval that holds for all classes at once, where the document has it."""
    if group.simultaneous_low is None or group.simultaneous_high is None:
        return group.low, group.high
    return group.simultaneous_low, group.simultaneous_high


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _calibration(clean: CleanAccuracy) -> Figure:
    bins = [b for b in clean.calibration if b.n]
    rows: list[Row] = [
        {"confidence": b.confidence, "accuracy": b.accuracy, "n": b.n,
         "tip": f"confidence {percent(b.confidence)}, right {percent(b.accuracy)}, n = {count(b.n)}"}
        for b in bins
    ]  # fmt: skip
    numbers = tabulate(
        "Calibration: confidence against accuracy",
        bins,
        {
            "confidence from": lambda b: percent(b.low),
            "to": lambda b: percent(b.high),
            ">mean confidence": lambda b: percent(b.confidence),
            ">right": lambda b: percent(b.accuracy),
            ">n": lambda b: count(b.n),
        },
    )

    def build(width: int) -> AnyChart:
        unit = alt.Scale(domain=[0, 1])
        ideal = alt.Chart(source([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        base = alt.Chart(source(rows))
        x = alt.X("confidence:Q", scale=unit, axis=shares(), title="mean confidence of the bin (%)")
        return alt.layer(
            ideal.mark_line(color=SOFT, strokeDash=[4, 3], strokeWidth=1.5).encode(x="x:Q", y="y:Q"),
            base.mark_rule(color=ALARM, strokeWidth=2).encode(x=x, y="accuracy:Q", y2="confidence:Q"),
            base.mark_point(color=ACCENT, filled=True, opacity=1).encode(
                x=x,
                y=alt.Y("accuracy:Q", scale=unit, axis=shares(), title="accuracy (%)"),
                size=alt.Size("n:Q", scale=alt.Scale(range=[30, 420], type="sqrt"), legend=None),
                description=tip(),
            ),
        ).properties(width=width - 60, height=min(width - 60, 300))

    way = "Overconfident" if clean.mean_confidence > clean.accuracy else "Underconfident"
    finding = f"{way}: mean confidence {percent(clean.mean_confidence)}, accuracy {percent(clean.accuracy)}"
    note = "Reliability diagram. Dashed: perfect calibration. Red: the gap. Dots grow with the images in their bin."
    return figure(build, finding=finding, note=note, table=numbers)


def _confusion(clean: CleanAccuracy, names: list[str]) -> Part:
    cells = ((n, i, j) for i, row in enumerate(clean.confusion) for j, n in enumerate(row) if n and i != j)
    errors = sorted(cells, key=lambda e: (-e[0], e[1], e[2]))
    many = len(names) > MOST_CLASSES
    numbers = table(
        "Most frequent errors (confusion matrix)" if errors else "No image was misclassified",
        ("class", "predicted as", ">images", ">of its class"),
        (
            (names[i], names[j], count(n), percent(n / sum(clean.confusion[i])))
            for n, i, j in errors[: MOST_ROWS if many else 100]
        ),
        search="Find a class" if many else "",
        most=MOST_ROWS,
    )
    if many:
        return _pairs(errors, clean, names, numbers) if errors else numbers
    finding, most_wrong = "No image was misclassified", 1
    if errors:
        most_wrong, i, j = errors[0]
        finding = f"Most frequent error: {names[i]} predicted as {names[j]} ({plural(most_wrong, 'image')})"
    rows: list[Row] = [
        {
            "true": names[i],
            "predicted": names[j],
            "n": n,
            "right": i == j,
            "strength": n / (max(1, sum(row)) if i == j else most_wrong),
            "tip": f"{names[i]} predicted as {names[j]}: {count(n)} of {count(sum(row))}",
        }
        for i, row in enumerate(clean.confusion)
        for j, n in enumerate(row)
    ]

    def build(width: int) -> AnyChart:
        room = min(width // 4, side(names, width))
        top = alt.Axis(orient="top", labelAngle=-50, labelLimit=room, domain=False, ticks=False)
        left = alt.Axis(labelLimit=room, minExtent=room, domain=False, ticks=False)
        base = alt.Chart(source(rows)).encode(
            x=alt.X("predicted:N", sort=None, title="predicted class", axis=top),
            y=alt.Y("true:N", sort=None, title=None, axis=left),
        )
        cell = (width - room - 20) / max(1, len(names))
        colour = alt.condition("datum.right", alt.value(ACCENT), alt.value(ALARM))
        strength = alt.Scale(domain=[0, 1], range=[0.04, 0.62])
        opacity = alt.Opacity("strength:Q", scale=strength, legend=None)
        layers = [base.mark_rect(cornerRadius=2).encode(color=colour, opacity=opacity, description=tip())]
        if cell > 15:
            text = base.transform_filter("datum.n > 0").mark_text(size=max(6, min(12, cell * 0.42)))
            layers.append(text.encode(text="n:Q"))
        return alt.layer(*layers).properties(width=cell * len(names), height=min(cell, 30) * len(names))

    note = "Confusion matrix. Rows: the true class. Blue: correct, red: misclassified; stronger means more images."
    return figure(build, finding=finding, note=note, table=numbers, full=True)


def _pairs(errors: Sequence[tuple[int, int, int]], clean: CleanAccuracy, names: list[str], numbers: Table) -> Figure:
    """The pairs of classes that are confused most often, of more classes than a matrix can show."""
    pairs = [
        ClassPair(
            names[i], names[j], n, f"{names[i]} predicted as {names[j]}: {count(n)} of {count(sum(clean.confusion[i]))}"
        )
        for n, i, j in errors[:MOST_PAIRS]
    ]
    first = pairs[0]
    finding = f"Most confused: {first.before} predicted as {first.after} ({plural(first.images, 'image')})"
    note = f"The {len(pairs)} most frequent of {plural(len(errors), 'pair')}: true class → predicted class."
    return draw_pairs(pairs, finding=finding, note=note, table=numbers)


def invariance_section(record: Invariance) -> Section | None:
    if not record.operations:
        return None
    finding = f"Worst under {record.worst_operation}: {percent(record.worst_accuracy)} on average over its strengths"

    rows = [row for each in record.operations for row in _rows(each, record)]
    names = [each.operation for each in record.operations]

    def build(width: int) -> AnyChart:
        columns = max(2, width // 145)
        y = alt.Y("accuracy:Q", title=None, axis=shares(ticks=3), scale=alt.Scale(domain=[0, 1]))
        x = alt.X("level:Q", title=None, axis=None, scale=alt.Scale(domain=[0.7, 5.3], nice=False))
        base = alt.Chart().encode(x=x, y=y)
        clean = alt.Chart().mark_rule(color=SOFT, strokeDash=[4, 3]).encode(y="min(clean):Q")
        bar = base.mark_rule(color=ACCENT, strokeWidth=5, opacity=0.25).encode(
            y=alt.Y("low:Q", title=None), y2="high:Q"
        )
        line = base.mark_line(color=ACCENT, strokeWidth=2)
        dots = base.mark_point(color=ACCENT, filled=True, size=36, opacity=1).encode(description=tip())
        size = {"width": max(60, (width - 20) // columns - 45), "height": 74}
        title = alt.Header(title=None, labelAnchor="start", labelFontSize=12, labelColor=INK)
        return alt.FacetChart(
            data=source(rows),
            spec=alt.layer(clean, bar, line, dots).properties(**size),
            facet=alt.Facet("operation:N", sort=names, header=title),
            columns=columns,
            spacing=16,
            resolve=alt.Resolve(axis=alt.AxisResolveMap(y="independent")),
        )

    note = "From left to right rising strengths, the first hardly visible; the dashed line is the untouched accuracy."
    parts = (figure(build, finding=finding, note=note, table=_table(record), full=True),)
    least = min((point.n for each in record.operations for point in each.points), default=record.clean.n)
    fewer = ""
    if least < record.clean.n:
        fewer = f" Strengths of which {count(least)} images told enough were measured on no more than these."
    summary = (
        f"{count(record.clean.n)} images, {percent(record.clean.accuracy)} of them right when untouched and "
        f"{percent(record.mean_accuracy)} on average over {len(record.operations)} operations; half of the images are "
        f"changed in one direction and half in the other.{fewer} Took {seconds(record.seconds)}."
    )
    return Section("invariance", "Invariance to image operations", summary, parts, records=(record,))


def _rows(each: OperationAccuracy, record: Invariance) -> list[Row]:
    return [
        {"operation": each.operation, "clean": record.clean.accuracy,
         "level": p.level, "accuracy": p.accuracy, "low": p.low, "high": p.high,
         "tip": f"{each.operation} {magnitude(p, each.unit)}: {percent(p.accuracy)} "
         f"({percent(p.low)} to {percent(p.high)})"}
        for p in each.points
    ]  # fmt: skip


def _table(record: Invariance) -> Table:
    most = max(len(each.points) for each in record.operations)
    columns = ("operation", *(f">strength {level}" for level in range(1, most + 1)), ">mean")
    rows = tuple(
        (
            each.operation,
            *(f"{percent(point.accuracy)} ({magnitude(point, each.unit)})".replace(" ()", "") for point in each.points),
            *("",) * (most - len(each.points)),
            percent(each.mean_accuracy),
        )
        for each in record.operations
    )
    return table("Accuracy under each operation", columns, rows, folded=True)
