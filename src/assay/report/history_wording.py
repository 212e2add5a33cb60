"""A history in words, the same on the page and on the terminal."""

from __future__ import annotations

from assay.records.comparison import Change, History, HistoryEntry, Track
from assay.report.comparison_wording import ARROW
from assay.wording import distinct, percent, plural

SHOWN = 6


def headline(history: History) -> str:
    """From the first check to the last: the accuracies that both measured, two at most."""
    track = history.tracks[0]
    first, last = track.entries[0], track.entries[-1]
    if first is last:
        return f"One check of {track.data}: a trend takes two."
    before = {share.measure: share for share in first.shares}
    both = [(before[share.measure], share) for share in last.shares if share.measure in before]
    said = [
        f"{share.measure.partition(',')[0]} {percent(was.accuracy)} → {percent(share.accuracy)}" for was, share in both
    ]
    chosen = [said[0], *[text for text in said[1:] if text.startswith("after pgd")]][:2] if said else []
    over = f"over {plural(len(track.entries), 'check')}"
    if not chosen:
        return f"The first and the last check have no accuracy in common {over}."
    text = ", ".join(chosen)
    return f"{text[0].upper()}{text[1:]} {over}."


def tally(history: History) -> str:
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
    return chosen[:SHOWN]
