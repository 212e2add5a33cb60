"""What mechanical fixes did, measured again on the same samples."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix
from assay.report.charts import Item, draw_items, figure
from assay.report.comparison_wording import ARROW, flips, interval_of, p_value, status_word
from assay.report.parts import Figure, Part, Prose, Section, Table, build_section, table, tabulate
from assay.report.summary import LOOKS
from assay.wording import count, distinct, inert, number, percent, plural, seconds


def fixes_section(fixes: Sequence[AppliedFix]) -> Section:
    applied = [fix for fix in fixes if not fix.refused]
    parts: list[Part | None] = [_judged(fixes), _effects(applied), _readings(applied)]
    weights = next((fix.weights for fix in applied if fix.weights), "")
    if weights:
        folder = weights.rpartition("/")[0]
        parts.append(
            Prose(
                f"The copy with every fix of weights is in `{weights}`, beside this report: hand over the folder "
                f"`{folder}`, or a factory of yours with `--weights {weights}`."
            )
        )
    summary = (
        f"Applied {count(len(applied))} of {count(len(fixes))} mechanical fixes, each to a copy of its own, and "
        "measured again on the same samples; the model itself was not touched."
    )
    return build_section("fixes", "Fixed and measured again", summary, *parts, records=fixes)


def _judged(fixes: Sequence[AppliedFix]) -> Table:
    return tabulate(
        "Rules judged again",
        fixes,
        {
            "rule": lambda fix: fix.rule,
            "fix": lambda fix: fix.fix,
            "what was done": lambda fix: f"not applied: {fix.refused}" if fix.refused else fix.applied,
            "before": lambda fix: f"{status_word(fix.before)}: {fix.measured_before}",
            "after": lambda fix: "–" if fix.refused else f"{status_word(fix.after)}: {fix.measured_after}",
            "time": lambda fix: seconds(fix.seconds),
        },
    )


def _effects(fixes: Sequence[AppliedFix]) -> Figure | None:
    effects = [(fix, effect) for fix in fixes for effect in fix.effects]
    if not effects:
        return None
    several = len({fix.rule for fix, _ in effects}) > 1
    names = distinct(
        [(f"{fix.rule}: " if several else "") + effect.measure.partition(",")[0] for fix, effect in effects], length=44
    )
    items = []
    for name, (_, effect) in zip(names, effects, strict=True):
        text = f"{inert(effect.measure)}: {percent(effect.reference)} before, {percent(effect.candidate)} after"
        items.append(Item(name, effect.candidate, text, before=effect.reference))
    build = draw_items(items, "accuracy (%)", step=32)
    largest_fix, largest = max(effects, key=lambda pair: abs(pair[1].difference))
    topic = inert(largest.measure.partition(",")[0])
    finding = (
        f"{inert(largest_fix.fix).capitalize()}: {topic} {percent(largest.reference)} before, "
        f"{percent(largest.candidate)} after"
    )
    numbers = tabulate(
        "Every number measured again",
        effects,
        {
            "fix": lambda pair: f"{pair[0].rule} {pair[0].fix}",
            "measure": lambda pair: pair[1].measure,
            ">before": lambda pair: percent(pair[1].reference),
            ">after": lambda pair: percent(pair[1].candidate),
            ">points (95 % interval)": lambda pair: interval_of(pair[1]),
            ">p, Holm": lambda pair: p_value(pair[1].adjusted),
            ">lost, gained": lambda pair: flips(pair[1]),
            "change": lambda pair: f"{ARROW[pair[1].change]} {pair[1].change}",
        },
    )
    note = "Ring: before. Diamond: after the fix, on the same images."
    return figure(build, finding=finding, note=note, table=numbers, full=True)


def _readings(fixes: Sequence[AppliedFix]) -> Table | None:
    rows = tuple(
        (f"{fix.rule} {fix.fix}", each.name, _format(each.before, each.unit), _format(each.after, each.unit))
        for fix in fixes
        for each in fix.readings
    )
    columns = ("fix", "quantity", ">before", ">after")
    return table("Other numbers", columns, rows) if rows else None


def _format(value: float, unit: str) -> str:
    if unit == "share":
        return percent(value)
    return count(int(value)) if value.is_integer() else number(value)


def accepted_section(checkup: Checkup) -> Section | None:
    """Each accepted finding with its reason, and each entry that accepts nothing with why."""
    accepted = [(verdict, verdict.accepted) for verdict in checkup.verdicts if verdict.accepted is not None]
    if not accepted and not checkup.outdated:
        return None
    findings = tabulate(
        "Accepted findings",
        accepted,
        {
            "rule": lambda pair: pair[0].rule,
            "verdict": lambda pair: LOOKS[pair[0].status].word,
            "measured": lambda pair: pair[0].measured,
            "accepted because": lambda pair: pair[1].reason,
            "until": lambda pair: "always" if pair[1].expires is None else pair[1].expires.isoformat(),
        },
    )
    entries = tabulate(
        "Entries out of date",
        checkup.outdated,
        {
            "rule": lambda each: each.entry.rule,
            "why it accepts nothing": lambda each: each.because,
            "accepted because": lambda each: each.entry.reason,
        },
    )
    summary = f"{plural(len(accepted), 'finding')} accepted in the baseline: shown, but the check does not fail by it."
    if checkup.outdated:
        summary += f" Entries that accept nothing: {count(len(checkup.outdated))}."
    parts = (findings if accepted else None, entries if checkup.outdated else None)
    return build_section("accepted", "Accepted findings", summary, *parts)
