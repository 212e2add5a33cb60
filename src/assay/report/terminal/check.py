"""What ``assay check``, ``assay report`` and ``assay explain`` print: findings, the categories, rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix
from assay.records.configuration import PreparationAudit
from assay.records.failure import FailedMeasurement
from assay.records.finding import Verdict
from assay.report.comparison_wording import ARROW
from assay.report.plan_wording import describe_costs
from assay.report.summary import (
    LOOKS,
    circumstances,
    describe_preparation,
    describe_uses,
    headline,
    in_order,
    size_of_change,
    states,
    subject_line,
    tally_sentence,
)
from assay.report.terminal.layout import STYLES, WIDEST, print_facts, print_line, print_table
from assay.wording import inert, number, percent, status


def print_summary(checkup: Checkup, console: Console) -> None:
    """Errors and warnings in full, all other verdicts counted. Reads as well without colour."""
    print_line(console, subject_line(checkup))
    if (audit := checkup.first(PreparationAudit)) is not None:
        print_line(console, describe_preparation(audit), "dim")
    print_line(console, headline(checkup), "bold")
    if size := size_of_change(checkup):
        print_line(console, f"{size}.", "dim")
    if checkup.subject.source != "data":
        for fitness, sentence in describe_uses(checkup.fitness):
            print_line(console, f"{LOOKS[fitness].sign} {sentence}", STYLES[fitness])
        console.print()
        console.print(_categories(checkup), width=WIDEST, highlight=False)
    console.print()
    failures = list(checkup.each(FailedMeasurement))
    places = {failure.place for failure in failures}
    for verdict in in_order(checkup.verdicts):
        judging_failed = verdict.status == "could not run" and verdict.where not in places
        if verdict.status in {"error", "warn"} or judging_failed:
            _print_verdict(verdict, console)
    for failure in failures:
        _print_failure(failure, checkup, console)
    for style, line in describe_fixes(checkup):
        print_line(console, line, style)
    for each in checkup.outdated:
        print_line(console, f"{each.entry.rule} is accepted in the baseline, but {each.because}", STYLES["warn"])
    print_line(console, tally_sentence(checkup.verdicts), "bold")
    failing = {failure.stage for failure in failures}
    skipped = [
        f"{stage.name} ({stage.skipped})" for stage in checkup.stages if stage.skipped and stage.name not in failing
    ]
    if skipped:
        print_line(console, f"Did not run: {', '.join(skipped)}.")
    if checkup.plan is not None and checkup.plan.within is not None and (costs := list(describe_costs(checkup.plan))):
        print_line(console, f"Fewer images than with the budget standard: {'; '.join(costs)}.")
    print_line(console, f"{circumstances(checkup)}.", "dim")


def describe_fixes(checkup: Checkup) -> Iterator[tuple[str, str]]:
    """(style, line) pairs: each fix with what was done, the numbers before and after, and why one was not applied."""
    fixes = list(checkup.each(AppliedFix))
    for fix in fixes:
        if fix.refused:
            yield STYLES["warn"], f"{fix.rule} not fixed ({fix.fix}): {fix.refused}"
            continue
        yield "bold", f"{fix.rule} fixed ({fix.fix}): {fix.applied}"
        yield "", f"  before: {fix.measured_before}"
        yield "", f"  after: {fix.measured_after}"
        for effect in fix.effects:
            arrow = "" if effect.change == "no change beyond noise" else f" {ARROW[effect.change]}"
            values = f"{percent(effect.reference)} → {percent(effect.candidate)}{arrow}"
            yield "", f"  {effect.measure.partition(',')[0]}: {values}"
        for reading in fix.readings:
            word = percent if reading.unit == "share" else number
            yield "", f"  {reading.name}: {word(reading.before)} → {word(reading.after)}"
    weights = next((fix.weights for fix in fixes if fix.weights), "")
    if weights:
        yield "", f"Fixed weights: {weights}, beside the report"


def _categories(checkup: Checkup) -> Table:
    table = Table.grid(padding=(0, 2))
    for state in states(checkup.verdicts):
        look = LOOKS[state.status]
        table.add_row(
            Text(f"{look.sign} {look.word}", style=STYLES[state.status]),
            Text("–" if state.score is None else str(state.score), justify="right"),
            Text(state.title.lower()),
            Text(state.summary, style="dim"),
        )
    return table


def _print_verdict(verdict: Verdict, console: Console) -> None:
    look = LOOKS[verdict.status]
    title = ((f"{look.sign} {look.word} ", STYLES[verdict.status]), (f"{inert(verdict.rule, keep='')} ", "bold"))
    print_line(console, Text.assemble(*title, inert(verdict.statement, keep="")))
    rows = [("measured", verdict.measured), ("required", verdict.threshold), ("where", verdict.where)]
    rows += [("why", verdict.why), ("fix", verdict.fix), ("show", verdict.command), ("mend", verdict.mend)]
    if verdict.accepted is not None:
        until = "" if verdict.accepted.expires is None else f", until {verdict.accepted.expires}"
        rows = [rows[0], ("accepted", f"{verdict.accepted.reason} ({verdict.accepted.accepted}{until})")]
    if verdict.remedy is not None:
        rows.append(("after fix", f"{verdict.remedy.measured} ({verdict.remedy.applied})"))
    details = Table.grid(padding=(0, 1))
    for name, value in rows:
        if value:
            details.add_row("", Text(name, style="dim"), Text(inert(value, keep="\n"), overflow="fold"))
    console.print(details, width=WIDEST, highlight=False)
    console.print()


def _print_failure(failure: FailedMeasurement, checkup: Checkup, console: Console) -> None:
    """What failed, why, what to do, and the rules that rest on it."""
    look, style = LOOKS["could not run"], STYLES["could not run"]
    resting = [v.rule for v in checkup.verdicts if v.status == "could not run" and v.where == failure.place]
    print_line(console, Text.assemble((f"{look.sign} {look.word} ", style), (inert(failure.place, keep=""), "bold")))
    rows = (("reason", failure.reason), ("way out", failure.way_out), ("not judged", ", ".join(resting)))
    print_facts(console, [(f" {name}", inert(value, keep="")) for name, value in rows])
    console.print()


def print_rules(rules: Sequence[tuple[str, str, str]], console: Console) -> None:
    """Ids and claims of (id, category, claim), under their categories."""
    for category in dict.fromkeys(category for _, category, _ in rules):
        print_line(console, category, "bold")
        rows = [(f"  {rule_id}", claim) for rule_id, own, claim in rules if own == category]
        print_table(console, ("", ""), rows, header=False)


def print_rule(passing: Verdict, failing: Verdict, console: Console, *, limits: str, remedy: str = "") -> None:
    """One rule, from its verdicts on an example that passes and on one that does not."""
    print_line(console, f"{passing.rule} · {passing.category}", "bold")
    print_line(console, passing.claim, "bold")
    print_line(console, f"Or: {failing.statement}")
    facts = (
        ("Holds when", passing.threshold),
        ("Why", passing.why),
        ("Fix", passing.fix),
        ("Shown by", passing.command),
        ("Mended by", passing.mend),
        ("Applied by", f"assay check --apply-fixes ({remedy})" if remedy else ""),
        ("Known limits", limits),
        ("Example", f"{status(failing.status)}: {_measured(failing)}"),
        ("", f"{status(passing.status)}: {_measured(passing)}"),
        ("Reference", passing.reference),
        ("Judged from", ", ".join(passing.evidence)),
    )
    print_facts(console, facts)


def _measured(verdict: Verdict) -> str:
    return verdict.measured + (f" ({verdict.where})" if verdict.where else "")
