"""Comparisons and histories in words, the same on pages and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.comparison import (
    Change,
    Comparison,
    Difference,
    History,
    HistoryEntry,
    Quantity,
    RuleChange,
    Track,
    Versus,
)
from assay.records.finding import Status
from assay.report.summary import LOOKS
from assay.wording import count, distance, distinct, listed, number, percent, plural, points

MOST_MEASURES = 6  # of a track
ARROW: dict[Change, str] = {"better": "▲", "worse": "▼", "no change beyond noise": "≈"}
TONE: dict[Change, Status] = {"better": "pass", "worse": "error", "no change beyond noise": "not run"}


def headline(comparison: Comparison) -> str:
    """What is better and what is worse, in one sentence."""
    return " ".join(f"{headline_of(versus)}." for versus in comparison.versus)


def headline_of(versus: Versus) -> str:
    """One candidate's part of the headline."""
    better, worse = (_named(versus, change) for change in ("better", "worse"))
    if not versus.differences:
        return f"{versus.candidate} has no measure in common with the reference"
    if not better and not worse:
        largest = max(versus.differences, key=lambda each: abs(each.difference))
        size = (
            f"the largest change is {points(largest.difference, digits=1)} points, {largest.measure.partition(',')[0]}"
        )
        measures = plural(len(versus.differences), "measure")
        if not largest.difference:
            return f"{versus.candidate} does not differ on any of {measures}"
        return f"{versus.candidate} does not differ beyond noise on any of {measures}: {size}"
    parts = [f"{verb} in {listed(names)}" for verb, names in (("worse", worse), ("better", better)) if names]
    return f"{versus.candidate} is {', '.join(parts)}"


def _named(versus: Versus, change: str) -> list[str]:
    changed = [each for each in versus.differences if each.change == change]
    names = [
        f"{short_name(each, versus.differences)} ({points(each.difference, digits=1)}{' points' if place == 0 else ''})"
        for place, each in enumerate(changed)
    ]
    return names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]


def tally(comparison: Comparison) -> str:
    """How many measures and rules went which way."""
    sentences = []
    for versus in comparison.versus:
        counts = {change: sum(each.change == change for each in versus.differences) for change in ARROW}
        changes = listed([f"{n} {change}" for change, n in counts.items() if n]) or "none"
        worse = sum(each.change in {"worse", "not judged"} for each in versus.rules)
        better = sum(each.change == "better" for each in versus.rules)
        name = f"{versus.candidate}: " if len(comparison.versus) > 1 else ""
        sentences.append(
            f"{name}{plural(len(versus.differences), 'measure')}, {changes}; "
            f"{plural(len(versus.rules), 'verdict')}, {better} better and {worse} worse."
        )
    return " ".join(sentences)


def short_name(difference: Difference, among: Sequence[Difference]) -> str:
    """The measure without its setting, where that is enough to tell it from the others."""
    topic = difference.measure.partition(",")[0]
    alone = sum(each.measure.partition(",")[0] == topic for each in among) == 1
    return topic if alone else difference.measure


def interval_of(difference: Difference) -> str:
    """``+1.20 (0.35 to 2.05)``, in percentage points."""
    low, high = (f"{bound * 100:.2f}".replace("-", "−") for bound in (difference.low, difference.high))
    return f"{points(difference.difference)} ({low} to {high})"


def p_value(p: float) -> str:
    """Two digits; ``< 0.0001`` below that."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def basis(difference: Difference) -> str:
    """What the test rests on: the pairs that differ, or the two sample sizes."""
    if not difference.paired:
        return f"not paired, n = {count(difference.n)} and {count(difference.n_candidate)}"
    flips = (
        "" if difference.lost is None else f", {count(difference.lost)} lost, {count(difference.gained or 0)} gained"
    )
    return f"n = {count(difference.n)}{flips}"


def flips(difference: Difference) -> str:
    """``6, 34 of 1,000``: samples right before only, and after only."""
    if not difference.paired:
        return f"{count(difference.n)}, {count(difference.n_candidate)} unpaired"
    both = "" if difference.lost is None else f"{count(difference.lost)}, {count(difference.gained or 0)} "
    return f"{both}of {count(difference.n)}"


def status_word(status: Status) -> str:
    """``✕ Fails``."""
    return f"{LOOKS[status].sign} {LOOKS[status].word}"


def describe_change(change: RuleChange) -> str:
    """What became of a rule, and why a move may mean nothing."""
    if change.change == "within noise":
        if not change.tested:
            return "one of the checks cannot tell"
        return f"moved, but {change.tested.partition(',')[0]} did not beyond noise"
    return "judged before, not now" if change.change == "not judged" else change.change


def value_of(quantity: Quantity, value: float) -> str:
    """The number in its unit."""
    if value.is_integer() and abs(value) >= 1000:
        return count(int(value))
    if quantity.unit == "share":
        return percent(value)
    return distance(value, "linf") if quantity.unit == "epsilon" else number(value)


def history_headline(history: History) -> str:
    """From the first check to the last: the accuracies that both measured, two at most."""
    track = history.tracks[0]
    first, last = track.entries[0], track.entries[-1]
    if first is last:
        return f"One check of {track.data}: a trend takes two."
    before = {share.measure: share for share in first.shares}
    both = [(before[share.measure], share) for share in last.shares if share.measure in before]
    accuracies = [
        f"{share.measure.partition(',')[0]} {percent(was.accuracy)} → {percent(share.accuracy)}" for was, share in both
    ]
    chosen = [text for text in accuracies if text.startswith("after pgd")]
    chosen = [*accuracies[:1], *(text for text in chosen if text != accuracies[0])][:2]
    over = f"over {plural(len(track.entries), 'check')}"
    if not chosen:
        return f"The first and the last check have no accuracy in common {over}."
    text = ", ".join(chosen)
    return f"{text[0].upper()}{text[1:]} {over}."


def history_tally(history: History) -> str:
    """How many changes stand out, how the findings moved, and what was skipped."""
    entries = [entry for track in history.tracks for entry in track.entries]
    changes = [change for entry in entries for change in entry.changes]
    better, worse = (sum(change.change == way for change in changes) for way in ("better", "worse"))
    last = history.tracks[0].entries[-1]
    parts = [
        f"From check to check, {plural(len(changes), 'comparison')}: {better} better and {worse} worse beyond noise",
        f"the last check has {plural(count_status(last, 'error'), 'failure')} and "
        f"{plural(count_status(last, 'warn'), 'warning')}",
    ]
    if missing := count_status(last, "could not run"):
        parts.append(f"{plural(missing, 'rule')} could not run in the last check")
    if history.skipped:
        parts.append(f"{plural(len(history.skipped), 'file')} skipped")
    return "; ".join(parts) + "."


def topic(measure: str) -> str:
    """The measure without its setting."""
    return measure.partition(",")[0]


def count_status(entry: HistoryEntry, status: str) -> int:
    """How many rules have that status."""
    return sum(each == status for _, each in entry.statuses)


def labels(track: Track) -> list[str]:
    """A short name for each check: its day, with the time where several share it."""
    days = [entry.started[:10] for entry in track.entries]
    return distinct(
        [entry.started[:16].replace("T", " ") if days.count(day) > 1 else day
         for day, entry in zip(days, track.entries, strict=True)]
    )  # fmt: skip


def moved(entry: HistoryEntry) -> str:
    """How many measures changed beyond noise since the check before: ``▲ 2 better, ▼ 1 worse``."""
    if not entry.changes:
        return "–"
    both: tuple[Change, Change] = ("better", "worse")
    ways = [(way, sum(change.change == way for change in entry.changes)) for way in both]
    return ", ".join(f"{ARROW[way]} {n} {way}" for way, n in ways if n) or "nothing beyond noise"


def common_measures(track: Track) -> list[str]:
    """The measures that at least two checks took in the same way, the commonest first; all where there is one check."""
    names = [share.measure for entry in track.entries for share in entry.shares]
    least = 1 if len(track.entries) == 1 else 2
    order = {name: place for place, name in reversed(list(enumerate(names)))}
    chosen = sorted({name for name in names if names.count(name) >= least}, key=lambda n: (-names.count(n), order[n]))
    return chosen[:MOST_MEASURES]
