"""What mechanical fixes did, measured again on the same samples."""

from __future__ import annotations

from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix
from assay.records.finding import Acceptance
from assay.report.charts import Item, draw_items, figure
from assay.report.comparison_wording import ARROW, flips, interval_of, p_value, status_word
from assay.report.parts import Figure, Part, Prose, Section, Table, table, tabulate
from assay.report.summary import LOOKS
from assay.wording import count, distinct, inert, number, percent, plural, seconds


def fixes_section(checkup: Checkup) -> Section | None:
    """Each fix that the findings declare: what was done, the rule judged again, and what else moved."""
    fixes = list(checkup.each(AppliedFix))
    if not fixes:
        return None
    applied = [fix for fix in fixes if not fix.refused]
    parts: list[Part] = [_judged(fixes)]
    parts += filter(None, (_effects(applied), _readings(applied)))
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
    return Section("fixes", "Fixed and measured again", summary, tuple(parts), records=tuple(fixes))


def _judged(fixes: list[AppliedFix]) -> Table:
    columns = ("rule", "fix", "what was done", "before", "after", "time")
    return table(
        "Rules judged again",
        tuple(name for name in columns),
        tuple(
            (
                fix.rule,
                fix.fix,
                f"not applied: {fix.refused}" if fix.refused else fix.applied,
                f"{status_word(fix.before)}: {fix.measured_before}",
                "–" if fix.refused else f"{status_word(fix.after)}: {fix.measured_after}",
                seconds(fix.seconds),
            )
            for fix in fixes
        ),
    )


def _effects(fixes: list[AppliedFix]) -> Figure | None:
    effects = [(fix, effect) for fix in fixes for effect in fix.effects]
    if not effects:
        return None
    several = len({fix.rule for fix, _ in effects}) > 1
    names = distinct(
        [(f"{fix.rule}: " if several else "") + effect.measure.partition(",")[0] for fix, effect in effects], length=44
    )
    items = [
        Item(
            name,
            effect.candidate,
            f"{inert(effect.measure)}: {percent(effect.reference)} before, {percent(effect.candidate)} after",
            before=effect.reference,
        )
        for name, (_, effect) in zip(names, effects, strict=True)
    ]
    build = draw_items(items, "accuracy (%)", step=32)
    largest_fix, largest = max(effects, key=lambda pair: abs(pair[1].difference))
    topic = inert(largest.measure.partition(",")[0])
    finding = (
        f"{inert(largest_fix.fix).capitalize()}: {topic} {percent(largest.reference)} before, "
        f"{percent(largest.candidate)} after"
    )
    columns = ("before", "after", "points (95 % interval)", "p, Holm", "lost, gained")
    numbers = table(
        "Every number measured again",
        ("fix", "measure", *(f">{name}" for name in columns), "change"),
        tuple(
            (
                f"{fix.rule} {fix.fix}",
                effect.measure,
                percent(effect.reference),
                percent(effect.candidate),
                interval_of(effect),
                p_value(effect.adjusted),
                flips(effect),
                f"{ARROW[effect.change]} {effect.change}",
            )
            for fix, effect in effects
        ),
    )
    note = "Ring: before. Diamond: after the fix, on the same images."
    return figure(build, finding=finding, note=note, table=numbers, full=True)


def _readings(fixes: list[AppliedFix]) -> Table | None:
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
    parts = []
    if accepted:
        parts.append(
            table(
                "Accepted findings",
                ("rule", "verdict", "measured", "accepted because", "until"),
                tuple(
                    (verdict.rule, LOOKS[verdict.status].word, verdict.measured, entry.reason, _until(entry))
                    for verdict, entry in accepted
                ),
            )
        )
    if checkup.outdated:
        parts.append(
            tabulate(
                "Entries out of date",
                checkup.outdated,
                {
                    "rule": lambda each: each.entry.rule,
                    "why it accepts nothing": lambda each: each.because,
                    "accepted because": lambda each: each.entry.reason,
                },
            )
        )
    if not parts:
        return None
    summary = f"{plural(len(accepted), 'finding')} accepted in the baseline: shown, but the check does not fail by it."
    if checkup.outdated:
        summary += f" Entries that accept nothing: {count(len(checkup.outdated))}."
    return Section("accepted", "Accepted findings", summary, tuple(parts))


def _until(entry: Acceptance) -> str:
    return "always" if entry.expires is None else entry.expires.isoformat()
