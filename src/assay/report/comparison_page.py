"""The page of ``assay compare``: drawn from a :class:`Comparison` alone."""

from __future__ import annotations

from assay.records.comparison import Compared, Comparison, CurveDifference, Versus
from assay.records.reading import made_inert
from assay.report import comparison_wording as words
from assay.report.charts import SOFT, Item, draw_items, figure
from assay.report.curves import Series, draw_curves, epsilon_axes
from assay.report.page import Page, render
from assay.report.parts import Facts, Figure, KeyFigure, Part, Prose, Section, table, tabulate
from assay.wording import clip, count, distance, distinct, epsilon, norm, percent, plural, points


def curves_section(comparison: Comparison) -> Section | None:
    """For each pair of curves: both, and their difference with its band."""
    parts: list[Part] = []
    for versus in comparison.versus:
        for curve in versus.curves:
            parts += filter(None, (_levels(curve, comparison.reference.name, versus), _gap(curve, versus)))
    if not parts:
        return None
    summary = (
        f"Bands are pointwise 95 % intervals of the difference from {count(comparison.resamples)} bootstrap draws over "
        "samples. The curve as a whole is judged by one number, the mean accuracy over ε, not point by point."
    )
    return Section("curves", "Accuracy against ε", summary, tuple(parts))


def _levels(curve: CurveDifference, reference: str, versus: Versus) -> Figure | None:
    scale, axes = epsilon_axes({curve.norm}, "accuracy (%)", y_shares=True)
    names = distinct([reference, versus.candidate], length=44)
    series = [
        Series(
            name,
            [point.epsilon * scale for point in curve.points],
            values,
            tips=[
                f"{name}, ε = {epsilon(point.epsilon, curve.norm)}: {percent(value)}"
                for point, value in zip(curve.points, values, strict=True)
            ],
        )
        for name, values in zip(
            names, zip(*((point.reference, point.candidate) for point in curve.points), strict=True), strict=True
        )
    ]
    halves = [
        "more than the last ε" if half is None else distance(half, curve.norm)
        for half in (curve.median_reference, curve.median_candidate)
    ]
    finding = f"Half of the images break at ε = {halves[1]}; in the reference at {halves[0]}"
    note = f"{curve.attack}, {norm(curve.norm)}, {plural(curve.steps, 'step')}."
    return draw_curves(series, axes, finding=finding, note=note)


def _gap(curve: CurveDifference, versus: Versus) -> Figure | None:
    scale, axes = epsilon_axes({curve.norm}, "difference (points)")
    spans = [f"{points(point.low)} to {points(point.high)}" for point in curve.points]
    sizes = [epsilon(point.epsilon, curve.norm) for point in curve.points]
    series = Series(
        versus.candidate,
        [point.epsilon * scale for point in curve.points],
        [point.difference * 100 for point in curve.points],
        [point.low * 100 for point in curve.points],
        [point.high * 100 for point in curve.points],
        [
            f"ε = {size}: {points(point.difference)} points ({span})"
            for size, point, span in zip(sizes, curve.points, spans, strict=True)
        ],
    )
    largest = max(curve.points, key=lambda point: abs(point.difference))
    finding = (
        f"{clip(versus.candidate, 40)} differs most at ε = {epsilon(largest.epsilon, curve.norm)}: "
        f"{points(largest.difference)} points"
    )
    numbers = table(
        "Accuracy against ε, both",
        (">ε", ">reference", ">candidate", ">difference", ">95 % interval"),
        (
            (size, percent(p.reference), percent(p.candidate), points(p.difference), span)
            for size, p, span in zip(sizes, curve.points, spans, strict=True)
        ),
    )
    note = "Band: 95 % bootstrap interval. Dashed: no difference."
    return draw_curves([series], axes, finding=finding, note=note, table=numbers, levels=[(0.0, "no difference")])


_CHANGES = {
    "better": ("var(--pass)", "triangle-up"),
    "worse": ("var(--error)", "triangle-down"),
    "no change beyond noise": (SOFT, "circle"),
}


def render_comparison(comparison: Comparison) -> str:
    """The whole page as text: one offline file."""
    comparison = made_inert(comparison)
    names = [comparison.reference.name, *(each.name for each in comparison.candidates)]
    sections = [_measures(comparison), curves_section(comparison), _rules(comparison), _quantities(comparison)]
    sections += [_left_out(comparison), _method(comparison)]
    return render(
        Page(
            title=" against ".join(clip(name, 60) for name in reversed(names)),
            subject=f"{' · '.join(clip(name, 60) for name in names[1:])}, held against {clip(names[0], 60)}",
            headline=words.headline(comparison),
            text=words.tally(comparison),
            key_figures=_key_figures(comparison),
            sections=tuple(section for section in sections if section is not None),
            version=comparison.reference.environment.assay,
            footer="Made by assay from compare.json.",
        )
    )


def _key_figures(comparison: Comparison) -> tuple[KeyFigure, ...]:
    several = len(comparison.versus) > 1
    figures = []
    for versus in comparison.versus:
        for each in versus.differences:
            name = words.short_name(each, versus.differences) + (f", {versus.candidate}" if several else "")
            number = f"{words.ARROW[each.change]}\u00a0{points(each.difference, digits=1)}"
            detail = f"points: {percent(each.reference)} to {percent(each.candidate)}"
            figures.append(KeyFigure(name, number, detail, "measures", status=words.TONE[each.change]))
    return tuple(figures[:12])


def _measures(comparison: Comparison) -> Section | None:
    figures = [figure for versus in comparison.versus if (figure := _forest(versus)) is not None]
    if not figures:
        return None
    paired = all(each.paired for versus in comparison.versus for each in versus.differences)
    summary = (
        "Candidate minus reference, in percentage points, "
        + ("on the same images" if paired else "on the same images where they could be paired")
        + f". Better or worse: p below {comparison.level:g} after Holm's correction over all "
        f"{plural(comparison.tests, 'test')}."
    )
    alone = "Compared without pairing, so only a larger difference stands out."
    notes = tuple(
        Prose(f"{versus.candidate}: {reason}. {alone}") for versus in comparison.versus for reason in versus.unpaired
    )
    return Section("measures", "What changed", summary, (*notes, *figures))


def _forest(versus: Versus) -> Figure | None:
    differences = versus.differences
    if not differences:
        return None
    names = distinct([words.short_name(each, differences) for each in differences], length=44)
    items = [
        Item(
            name,
            each.difference * 100,
            f"{each.measure}: {words.interval_of(each)} points, {each.change}",
            low=each.low * 100,
            high=each.high * 100,
            kind=each.change,
        )
        for name, each in zip(names, differences, strict=True)
    ]
    build = draw_items(
        items,
        "difference (points)",
        share=False,
        domain=None,
        kinds=_CHANGES,
        reference=(0.0, "no difference"),
        step=34,
    )
    numbers = tabulate(
        "Every measure",
        differences,
        {
            "measure": lambda each: each.measure,
            ">reference": lambda each: percent(each.reference),
            ">candidate": lambda each: percent(each.candidate),
            ">difference (95 % interval)": words.interval_of,
            ">p": lambda each: words.p_value(each.p),
            ">p after Holm": lambda each: words.p_value(each.adjusted),
            "test": lambda each: f"{each.test}, {words.basis(each)}" + (f"; {each.note}" if each.note else ""),
            "change": lambda each: f"{words.ARROW[each.change]} {each.change}",
        },
    )
    note = "Mark: candidate minus reference, on its 95 % interval. ▲ better, ▼ worse, ● no change beyond noise."
    return figure(build, finding=words.headline_of(versus), note=note, table=numbers, full=True)


def _rules(comparison: Comparison) -> Section | None:
    parts: list[Part] = []
    for versus in comparison.versus:
        moved = [each for each in versus.rules if each.change != "same"]
        still = [each for each in versus.rules if each.change == "same"]
        for rules, title, folded in ((moved, "moved", False), (still, "stayed", True)):
            if rules:
                verb = f"{plural(len(rules), 'verdict')} {title}: {versus.candidate}"
                parts.append(
                    tabulate(
                        verb,
                        rules,
                        {
                            "rule": lambda each: each.rule,
                            "claim": lambda each: each.claim,
                            "reference": lambda each: f"{words.status_word(each.before)}: {each.measured_before}",
                            "candidate": lambda each: f"{words.status_word(each.after)}: {each.measured_after}",
                            "change": words.describe_change,
                        },
                        folded=folded,
                    )
                )
    if not parts:
        return None
    summary = (
        "A verdict can cross its threshold by noise: where its number was tested and did not move beyond noise, that "
        "is said, and it counts neither way. Numbers without a test count as they stand."
    )
    return Section("verdicts", "Verdicts side by side", summary, tuple(parts))


def _quantities(comparison: Comparison) -> Section | None:
    parts = tuple(
        tabulate(
            f"Numbers: {versus.candidate}",
            versus.quantities,
            {
                "quantity": lambda each: each.name,
                ">reference": lambda each: words.value_of(each, each.reference),
                ">candidate": lambda each: words.value_of(each, each.candidate),
            },
        )
        for versus in comparison.versus
        if versus.quantities
    )
    return Section("numbers", "Numbers without a test", "Shown side by side, not judged.", parts) if parts else None


def _left_out(comparison: Comparison) -> Section | None:
    rows = tuple((versus.candidate, reason) for versus in comparison.versus for reason in versus.left_out)
    if not rows:
        return None
    numbers = table("Measures left out", ("candidate", "why"), rows)
    summary = "What one check lacks, or took under another setting: such numbers cannot be held against each other."
    return Section("left-out", "Not compared", summary, (numbers,))


def _method(comparison: Comparison) -> Section:
    checks = (comparison.reference, *comparison.candidates)
    numbers = table(
        "The checks",
        ("name", "model", "data", "started", "budget, seed", "software and machine"),
        tuple(_describe(each) for each in checks),
    )
    facts = Facts(
        (
            ("accuracies, same images", "McNemar's exact test; Newcombe's interval for paired proportions"),
            ("accuracies, other images", "Fisher's exact test; Newcombe's interval for independent proportions"),
            (
                "curves and means",
                f"bootstrap over samples, {count(comparison.resamples)} draws, seed {comparison.seed}",
            ),
            ("many tests", f"Holm's correction over {plural(comparison.tests, 'test')}, level {comparison.level:g}"),
        )
    )
    prose = Prose(
        "The tests ask whether these networks differ on images such as these. Whether one way of training is better "
        "than another takes several seeds of each."
    )
    return Section(
        "method",
        "How this was compared",
        "Intervals are 95 %, each on its own; the judgement is by the corrected p.",
        (numbers, facts, prose),
    )


def _describe(check: Compared) -> tuple[str, ...]:
    machine = check.environment
    return (
        check.name,
        check.model + (f", weights {check.weights}" if check.weights else ""),
        f"{check.data}, {check.split}: {count(check.n)} of {count(check.available)}",
        check.started,
        f"{check.budget}, {check.seed}",
        f"assay {machine.assay}, torch {machine.torch}, {machine.device}, {machine.processor}",
    )
