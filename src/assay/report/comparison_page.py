"""The page of ``assay compare``: drawn from a :class:`Comparison` alone."""

from __future__ import annotations

from collections.abc import Callable

from assay.records.comparison import Compared, Comparison, CurveDifference, RuleChange, Versus
from assay.records.model_comparison import ModelComparison
from assay.records.reading import made_inert
from assay.report import comparison_wording as words
from assay.report import models_page, models_wording
from assay.report.charts import SOFT, Item, draw_items, figure
from assay.report.curves import Series, draw_curves, epsilon_axes
from assay.report.page import Page, render
from assay.report.parts import Facts, Figure, KeyFigure, Part, Prose, Section, table, tabulate
from assay.wording import clip, count, distance, distinct, epsilon, norm, percent, plural, points


def _curves(comparison: Comparison) -> Section | None:
    """For each pair of curves: both, and their difference with its band."""
    curves = [(curve, versus) for versus in comparison.versus for curve in versus.curves]
    figures = [(_levels(curve, comparison.reference.name, versus), _gap(curve, versus)) for curve, versus in curves]
    parts = [figure for pair in figures for figure in pair if figure is not None]
    if not parts:
        return None
    summary = (
        f"Bands hold for all sizes together at 95 %, from {count(comparison.resamples)} random exchanges of "
        "samples. The curve as a whole is judged by one number, the mean accuracy over ε, not point by point."
    )
    return Section("curves", "Accuracy against ε", summary, tuple(parts))


def _levels(curve: CurveDifference, reference: str, versus: Versus) -> Figure | None:
    scale, axes = epsilon_axes({curve.norm}, "accuracy (%)", y_shares=True)
    names = distinct([reference, versus.candidate], length=44)
    sizes = [point.epsilon for point in curve.points]
    series = []
    for name, values in zip(names, zip(*((p.reference, p.candidate) for p in curve.points), strict=True), strict=True):
        pairs = zip(sizes, values, strict=True)
        tips = [f"{name}, ε = {epsilon(size, curve.norm)}: {percent(value)}" for size, value in pairs]
        series.append(Series(name, [size * scale for size in sizes], values, tips=tips))
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
        if largest.difference
        else f"{clip(versus.candidate, 40)} does not differ at any ε"
    )
    numbers = table(
        "Accuracy against ε, both",
        (">ε", ">reference", ">candidate", ">difference", ">95 % interval"),
        (
            (size, percent(p.reference), percent(p.candidate), points(p.difference), span)
            for size, p, span in zip(sizes, curve.points, spans, strict=True)
        ),
    )
    note = "Band: 95 %, of all sizes together where the samples are paired. Dashed: no difference."
    return draw_curves([series], axes, finding=finding, note=note, table=numbers, levels=[(0.0, "no difference")])


_CHANGES = {
    "better": ("var(--pass)", "triangle-up"),
    "worse": ("var(--error)", "triangle-down"),
    "no change beyond noise": (SOFT, "circle"),
}


def render_comparison(comparison: Comparison, *, models: ModelComparison | None = None) -> str:
    """The whole page as text: one offline file; with ``models``, what they did on the same images comes first."""
    comparison = made_inert(comparison)
    models = None if models is None else made_inert(models)
    names = [comparison.reference.name, *(each.name for each in comparison.candidates)]
    sections = [_measures(comparison), _curves(comparison), _rules(comparison), _quantities(comparison)]
    sections += [_left_out(comparison), _method(comparison)]
    return render(
        Page(
            title=" against ".join(clip(name, 60) for name in reversed(names)),
            subject=f"{' · '.join(clip(name, 60) for name in names[1:])}, held against {clip(names[0], 60)}",
            headline=words.headline(comparison) if models is None else models_wording.headline(models),
            text=words.tally(comparison) if models is None else _text(comparison, models),
            key_figures=_key_figures(comparison) if models is None else models_page.key_figures(models),
            sections=(
                *(() if models is None else models_page.sections(models)),
                *(section for section in sections if section is not None),
            ),
            version=comparison.reference.environment.assay,
            footer="Made by assay from compare.json.",
        )
    )


def _text(comparison: Comparison, models: ModelComparison) -> str:
    return " ".join(filter(None, (models_wording.tally(models), words.headline(comparison), words.tally(comparison))))


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
    figures = draw_differences(comparison)
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


def draw_differences(comparison: Comparison) -> list[Figure]:
    """For each candidate its differences from the reference with their intervals."""
    return [figure for versus in comparison.versus if (figure := _forest(versus)) is not None]


def _forest(versus: Versus) -> Figure | None:
    differences = versus.differences
    if not differences:
        return None
    names = distinct([words.short_name(each, differences) for each in differences], length=44)
    items = []
    for name, each in zip(names, differences, strict=True):
        text = f"{each.measure}: {words.interval_of(each)} points, {each.change}"
        value, low, high = (bound * 100 for bound in (each.difference, each.low, each.high))
        items.append(Item(name, value, text, low, high, kind=each.change))
    line, title = (0.0, "no difference"), "difference (points)"
    build = draw_items(items, title, share=False, domain=None, kinds=_CHANGES, reference=line, step=34)
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
    columns: dict[str, Callable[[RuleChange], str]] = {
        "rule": lambda each: each.rule,
        "claim": lambda each: each.claim,
        "reference": lambda each: f"{words.status_word(each.before)}: {each.measured_before}",
        "candidate": lambda each: f"{words.status_word(each.after)}: {each.measured_after}",
        "change": words.describe_change,
    }
    parts: list[Part] = []
    for versus in comparison.versus:
        moved = [each for each in versus.rules if each.change != "same"]
        still = [each for each in versus.rules if each.change == "same"]
        for rules, title in ((moved, "moved"), (still, "stayed")):
            caption = f"{plural(len(rules), 'verdict')} {title}: {versus.candidate}"
            parts += [tabulate(caption, rules, columns, folded=title == "stayed")] if rules else []
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
    rows = [(versus.candidate, reason) for versus in comparison.versus for reason in versus.left_out]
    numbers = table("Measures left out", ("candidate", "why"), rows)
    summary = "What one check lacks, or took under another setting: such numbers cannot be held against each other."
    return Section("left-out", "Not compared", summary, (numbers,)) if rows else None


def _method(comparison: Comparison) -> Section:
    numbers = tabulate(
        "The checks",
        (comparison.reference, *comparison.candidates),
        {
            "name": lambda check: check.name,
            "model": lambda check: check.model + (f", weights {check.weights}" if check.weights else ""),
            "data": lambda check: f"{check.data}, {check.split}: {count(check.n)} of {count(check.available)}",
            "started": lambda check: check.started,
            "budget, seed": lambda check: f"{check.budget}, {check.seed}",
            "software and machine": _machine,
        },
    )
    draws = (
        f"samples exchanged at random (sign-flip test), a bootstrap where they are not paired; "
        f"{count(comparison.resamples)} draws, seed {comparison.seed}"
    )
    facts = Facts(
        (
            ("accuracies, same images", "McNemar's exact test; Newcombe's interval for paired proportions"),
            ("accuracies, other images", "Fisher's exact test; Newcombe's interval for independent proportions"),
            ("curves and means", draws),
            ("many tests", f"Holm's correction over {plural(comparison.tests, 'test')}, level {comparison.level:g}"),
        )
    )
    prose = Prose(
        "The tests ask whether these networks differ on images such as these. Whether one way of training is better "
        "than another takes several seeds of each."
    )
    summary = "Intervals are 95 %, each on its own; the judgement is by the corrected p."
    return Section("method", "How this was compared", summary, (numbers, facts, prose))


def _machine(check: Compared) -> str:
    machine = check.environment
    return f"assay {machine.assay}, torch {machine.torch}, {machine.device}, {machine.processor}"
