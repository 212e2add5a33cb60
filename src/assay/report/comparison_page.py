"""The page of ``assay compare``: drawn from a :class:`Comparison` alone."""

from __future__ import annotations

import altair as alt

from assay.records.comparison import Compared, Comparison, Versus
from assay.report import comparison_wording as say
from assay.report.comparison_curves import curves_section
from assay.report.drawing import SOFT, AnyChart, Row, figure, side, source, tip
from assay.report.inertness import made_inert
from assay.report.parts import NUMBER, Column, Facts, Figure, Part, Prose, Section, Table
from assay.report.sheet import Fact, Sheet, render_sheet
from assay.report.standing import LOOKS
from assay.report.wording import clip, count, distinct, percent, plural

_BETTER = "var(--pass)"
_TONES = {"better": _BETTER, "worse": "var(--error)", "no change beyond noise": SOFT}


def render_comparison(comparison: Comparison) -> str:
    """The whole page as text: one offline file."""
    comparison = made_inert(comparison)
    names = [comparison.reference.name, *(each.name for each in comparison.candidates)]
    sections = [_measures(comparison), curves_section(comparison), _rules(comparison), _quantities(comparison)]
    sections += [_left_out(comparison), _method(comparison)]
    sheet = Sheet(
        title=" against ".join(clip(name, 60) for name in reversed(names)),
        subject=f"{' · '.join(clip(name, 60) for name in names[1:])}, held against {clip(names[0], 60)}",
        headline=say.headline(comparison),
        tally=say.tally(comparison),
        tiles=_tiles(comparison),
        sections=tuple(section for section in sections if section is not None),
        version=comparison.reference.environment.assay,
    )
    return render_sheet(
        sheet, footer="Made by assay from compare.json. This page is one file and asks nothing of the network."
    )


def _tiles(comparison: Comparison) -> tuple[Fact, ...]:
    several = len(comparison.versus) > 1
    tiles = []
    for versus in comparison.versus:
        for each in versus.differences:
            name = say.short_name(each, versus.differences) + (f", {versus.candidate}" if several else "")
            number = f"{say.ARROW[each.change]} {say.points(each.difference, digits=1)}"
            detail = f"points: {percent(each.reference)} to {percent(each.candidate)}"
            tiles.append(Fact(name, number, detail, LOOKS[say.TONE[each.change]].name, "measures"))
    return tuple(tiles[:12])


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
    found = versus.differences
    if not found:
        return None
    names = distinct([say.short_name(each, found) for each in found], length=44)
    rows: list[Row] = [
        {
            "measure": name,
            "difference": each.difference * 100,
            "low": each.low * 100,
            "high": each.high * 100,
            "change": each.change,
            "tip": f"{each.measure}: {say.interval_of(each)} points, {each.change}",
        }
        for name, each in zip(names, found, strict=True)
    ]

    def build(width: int) -> AnyChart:
        room = side(names, width)
        scale = alt.Scale(domain=list(_TONES), range=list(_TONES.values()))
        shape = alt.Scale(domain=list(_TONES), range=["triangle-up", "triangle-down", "circle"])
        base = alt.Chart(source(rows)).encode(
            y=alt.Y("measure:N", sort=None, title=None, axis=alt.Axis(labelLimit=room, grid=False, ticks=False)),
            color=alt.Color("change:N", scale=scale, legend=None),
        )
        title = "candidate minus reference (points)" if width > 400 else "difference (points)"
        x = alt.X(
            "difference:Q", title=title, axis=alt.Axis(tickCount=6 if width > 400 else 4), scale=alt.Scale(zero=True)
        )
        zero = alt.Chart(source([{"at": 0.0}])).mark_rule(color=SOFT, strokeWidth=1.5).encode(x="at:Q")
        return alt.layer(
            zero,
            base.mark_rule(strokeWidth=5, opacity=0.35, strokeCap="round").encode(
                x=alt.X("low:Q"), x2="high:Q", description=tip()
            ),
            base.mark_point(filled=True, size=95, opacity=1).encode(
                x=x, shape=alt.Shape("change:N", scale=shape, legend=None), description=tip()
            ),
        ).properties(width=width - room - 20, height=alt.Step(34))

    columns = ("reference", "candidate", "difference (95 % interval)", "p", "p after Holm")
    table = Table(
        "Every measure",
        (Column("measure"), *(Column(name, NUMBER) for name in columns), Column("test"), Column("change")),
        tuple(
            (
                each.measure,
                percent(each.reference),
                percent(each.candidate),
                say.interval_of(each),
                say.p_value(each.p),
                say.p_value(each.adjusted),
                f"{each.test}, {say.basis(each)}" + (f"; {each.note}" if each.note else ""),
                f"{say.ARROW[each.change]} {each.change}",
            )
            for each in found
        ),
    )
    note = "Mark: the difference, on its 95 % interval. ▲ better, ▼ worse, ● no change beyond noise."
    return figure(build, finding=say.headline_of(versus), note=note, table=table, full=True)


def _rules(comparison: Comparison) -> Section | None:
    parts: list[Part] = []
    for versus in comparison.versus:
        moved = [each for each in versus.rules if each.change != "same"]
        still = [each for each in versus.rules if each.change == "same"]
        for rules, title, folded in ((moved, "moved", False), (still, "stayed", True)):
            if rules:
                verb = f"{plural(len(rules), 'verdict')} {title}: {versus.candidate}"
                parts.append(
                    Table(
                        verb,
                        (Column("rule"), Column("claim"), Column("reference"), Column("candidate"), Column("so it is")),
                        tuple(
                            (
                                each.rule,
                                each.claim,
                                f"{say.status_word(each.before)}: {each.measured_before}",
                                f"{say.status_word(each.after)}: {each.measured_after}",
                                say.rule_says(each),
                            )
                            for each in rules
                        ),
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
        Table(
            f"Numbers: {versus.candidate}",
            (Column("quantity"), Column("reference", NUMBER), Column("candidate", NUMBER)),
            tuple(
                (each.name, say.value_of(each, each.reference), say.value_of(each, each.candidate))
                for each in versus.quantities
            ),
        )
        for versus in comparison.versus
        if versus.quantities
    )  # fmt: skip
    return (
        Section("numbers", "Numbers without a test", "Shown side by side, judged by nobody.", parts) if parts else None
    )


def _left_out(comparison: Comparison) -> Section | None:
    rows = tuple((versus.candidate, reason) for versus in comparison.versus for reason in versus.left_out)
    if not rows:
        return None
    table = Table("Measures left out", (Column("candidate"), Column("why")), rows)
    summary = "What one check lacks, or took under another setting: such numbers cannot be held against each other."
    return Section("left-out", "Not compared", summary, (table,))


def _method(comparison: Comparison) -> Section:
    checks = (comparison.reference, *comparison.candidates)
    table = Table(
        "The checks",
        tuple(Column(title) for title in ("name", "model", "data", "started", "budget, seed", "software and machine")),
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
        (table, facts, prose),
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
