"""What ``assay compare``, ``assay history`` and ``assay claims`` print."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.records.claims import ClaimsReport
from assay.records.comparison import Comparison, Difference, History, Track, Versus
from assay.records.reading import made_inert
from assay.report import comparison_wording as words
from assay.report.claims_wording import LOOKS, circumstances, headline
from assay.report.terminal.layout import STYLES, WIDEST_TABLE, add_row, make_table, print_line
from assay.wording import inert, percent, plural

_CHANGES = {
    "better": STYLES["pass"],
    "worse": STYLES["error"],
    "not judged": STYLES["error"],
    "no change beyond noise": "dim",
}
_MEASURES = 3  # of a history that have a column


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The finding, a table of the measures of each candidate, and the verdicts that moved."""
    comparison = made_inert(comparison)
    print_line(console, words.headline(comparison), "bold")
    for versus in comparison.versus:
        console.print()
        print_line(console, f"{versus.candidate} against {comparison.reference.name}")
        for reason in versus.unpaired:
            print_line(console, f"not paired: {reason}", STYLES["warn"])
        if versus.differences:
            console.print(_measures(versus), width=WIDEST_TABLE, highlight=False)
        for each in versus.rules:
            if each.change != "same":
                statuses = f"{words.status_word(each.before)} → {words.status_word(each.after)}"
                line = f"{each.rule} {each.claim}: {statuses} ({words.describe_change(each)})"
                print_line(console, line, _CHANGES.get(each.change, "dim"))
        for reason in versus.left_out:
            print_line(console, f"not compared: {reason}", "dim")
    console.print()
    corrected = f"p below {comparison.level:g} after Holm's correction over {plural(comparison.tests, 'test')}"
    print_line(console, f"Better or worse: {corrected}. Intervals are 95 %.", "dim")


def _measures(versus: Versus) -> Table:
    table = make_table("", "measure", ">before", ">after", ">points (95 %)", ">p, Holm", ">lost, gained")
    for each in versus.differences:
        style = _CHANGES[each.change]
        add_row(
            table,
            Text(words.ARROW[each.change], style=style),
            words.short_name(each, versus.differences),
            percent(each.reference),
            percent(each.candidate),
            Text(words.interval_of(each), style=style),
            words.p_value(each.adjusted),
            Text(_pairs(each), style="dim"),
        )
    return table


def _pairs(each: Difference) -> str:
    if not each.paired:
        return "not paired"
    return "" if each.lost is None else f"{each.lost:,}, {each.gained:,}"


def print_history(history: History, console: Console) -> None:
    """The finding, a table of each track with what moved beyond noise, and the files that were skipped."""
    history = made_inert(history)
    print_line(console, words.history_headline(history), "bold")
    for track in history.tracks:
        console.print()
        print_line(console, f"{track.data}, {track.split}")
        console.print(_track(track), width=WIDEST_TABLE, highlight=False)
    console.print()
    print_line(console, "▲ better, ▼ worse than the check before it, beyond noise.", "dim")
    print_line(console, words.history_tally(history))
    for reason in history.skipped:
        print_line(console, f"skipped: {reason}", STYLES["warn"])


def _track(track: Track) -> Table:
    measures = words.common_measures(track)[:_MEASURES]
    several = len({entry.model for entry in track.entries}) > 1
    columns = ("check", *(("model",) if several else ()), *(f">{words.topic(measure)}" for measure in measures))
    table = make_table(*columns, ">fails", ">warns")
    for name, entry in zip(words.labels(track), track.entries, strict=True):
        shares = {share.measure: share for share in entry.shares}
        moved = [change for change in entry.changes if change.change != "no change beyond noise"]
        signs = {change.measure: words.ARROW[change.change] for change in moved}
        accuracies = (
            f"{percent(shares[measure].accuracy)} {signs.get(measure, ' ')}" if measure in shares else "–"
            for measure in measures
        )
        findings = (str(words.count_status(entry, status)) for status in ("error", "warn"))
        add_row(table, name, *((entry.model,) if several else ()), *accuracies, *findings)
    return table


_STATUS = {"supported": "pass", "refuted": "error", "undecided": "warn"}


def print_claims(report: ClaimsReport, console: Console) -> None:
    """The headline and a row a claim; reads as well without colour."""
    print_line(console, circumstances(report), "dim")
    print_line(console, headline(report), "bold")
    console.print()
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in report.results:
        look = LOOKS[result.verdict]
        verdict = Text(f"{look.sign} {look.word.lower()}", style=STYLES[_STATUS[result.verdict]])
        sentence = Text.assemble(result.sentence, "\n", (inert(result.because, keep=""), "dim"))
        table.add_row(verdict, Text(result.id), sentence)
    for failed in report.failed:
        sentence = Text.assemble(failed.sentence, "\n", (inert(failed.error, keep=""), "dim"))
        table.add_row(Text("– failed", style=STYLES["error"]), Text(failed.id), sentence)
    console.print(table, width=WIDEST_TABLE, highlight=False)
