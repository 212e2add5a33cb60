"""The page of ``assay history``: drawn from a :class:`History` alone."""

from __future__ import annotations

import altair as alt

from assay.records.comparison import History, Track
from assay.records.reading import made_inert
from assay.report import comparison_wording as words
from assay.report.charts import AnyChart, Row, colours, figure, shapes, shares, side, source, tip
from assay.report.page import Page, render
from assay.report.parts import Facts, Figure, KeyFigure, Part, Section, Table, table
from assay.report.summary import LOOKS
from assay.wording import accuracy, clip, distinct, interval, percent, plural

_FILLS = {"error": "var(--error)", "warn": "var(--warn)", "pass": "var(--pass)", "not run": "var(--line)"}


def render_history(history: History) -> str:
    """The whole page as text: one offline file."""
    history = made_inert(history)
    sections: list[Section] = []
    for number, track in enumerate(history.tracks):
        sections.append(_track(track, number))
    sections += [section for section in (_changes(history), _skipped(history)) if section is not None]
    sections.append(_method(history))
    checks = sum(len(track.entries) for track in history.tracks)
    return render(
        Page(
            title=f"{clip(history.folder, 80)}: {plural(checks, 'check')}",
            subject=f"{plural(checks, 'check')} in {clip(history.folder, 80)}",
            headline=words.history_headline(history),
            text=words.history_tally(history),
            key_figures=_key_figures(history.tracks[0]),
            sections=tuple(sections),
            version=history.tracks[0].entries[-1].assay,
            footer="Made by assay history.",
        )
    )


def _key_figures(track: Track) -> tuple[KeyFigure, ...]:
    last = track.entries[-1]
    shares = {share.measure: share for share in last.shares}
    figures = [
        KeyFigure(f"{words.topic(measure)}, last", percent(share.accuracy), interval(share), "track-0")
        for measure in words.common_measures(track)
        if (share := shares.get(measure)) is not None
    ]
    for status, noun in (("error", "failures"), ("warn", "warnings")):
        amount = words.count_status(last, status)
        was = words.count_status(track.entries[0], status)
        detail = f"{was} in the first check"
        figures.append(KeyFigure(f"{noun}, last", str(amount), detail, "track-0", status=status if amount else "pass"))
    return tuple(figures)


def _track(track: Track, number: int) -> Section:
    names = words.labels(track)
    parts: list[Part] = [
        part for part in (_accuracies(track, names), _findings(track, names), _rules(track, names)) if part is not None
    ]
    parts.append(_checks(track, names))
    first, last = track.entries[0].started[:10], track.entries[-1].started[:10]
    summary = (
        f"{plural(len(track.entries), 'check')} from {first} to {last}, in the order of the time recorded in them."
    )
    return Section(f"track-{number}", f"{clip(track.data, 60)}, {track.split}", summary, tuple(parts))


def _axis(names: list[str], width: int) -> alt.X:
    crowded = (max(map(len, names)) + 2) * len(names) * 7 > width - 60
    angle = alt.Axis(labelAngle=-40 if crowded else 0, grid=False, ticks=False, labelOverlap=True)
    return alt.X("check:N", sort=names, title=None, axis=angle, scale=alt.Scale(paddingOuter=0.3))


def _accuracies(track: Track, names: list[str]) -> Figure | None:
    measures = words.common_measures(track)
    titles = distinct(measures, length=44)
    rows: list[Row] = [
        {
            "series": title,
            "check": name,
            "accuracy": share.accuracy,
            "low": share.low,
            "high": share.high,
            "tip": f"{name}, {share.measure}: {accuracy(share)}",
        }
        for title, measure in zip(titles, measures, strict=True)
        for name, entry in zip(names, track.entries, strict=True)
        for share in entry.shares
        if share.measure == measure
    ]
    if not rows:
        return None

    def build(width: int) -> AnyChart:
        base = alt.Chart(source(rows)).encode(x=_axis(names, width), color=colours(titles))
        y = alt.Y("accuracy:Q", title="accuracy (%)", axis=shares(), scale=alt.Scale(domain=[0, 1]))
        return alt.layer(
            base.mark_line(strokeWidth=2).encode(y=y),
            base.mark_rule(strokeWidth=5, opacity=0.3, strokeCap="round").encode(y=alt.Y("low:Q"), y2="high:Q"),
            base.mark_point(filled=True, size=60, opacity=1).encode(y=y, shape=shapes(titles), description=tip()),
        ).properties(width=width - 55, height=280)

    numbers = table(
        "Accuracies",
        (">check", *(f">{title}" for title in titles)),
        tuple(
            (name, *(next((accuracy(s) for s in entry.shares if s.measure == m), "–") for m in measures))
            for name, entry in zip(names, track.entries, strict=True)
        ),
    )
    finding = _trend(track, measures[0])
    note = "Bars: 95 % Wilson intervals. A line joins numbers that were measured in the same way."
    return figure(build, finding=finding, note=note, table=numbers, full=True, legend=titles)


def _trend(track: Track, measure: str) -> str:
    seen = [share for entry in track.entries for share in entry.shares if share.measure == measure]
    name = words.topic(measure).capitalize()
    if len(seen) < 2:
        return f"{name}: {percent(seen[0].accuracy)}"
    steps = sum(
        change.measure == measure and change.change != "no change beyond noise"
        for entry in track.entries
        for change in entry.changes
    )
    went = f"{name} went from {percent(seen[0].accuracy)} to {percent(seen[-1].accuracy)}"
    return f"{went}, {plural(steps, 'step')} of it beyond noise" if steps else f"{went}, no step of it beyond noise"


def _findings(track: Track, names: list[str]) -> Figure:
    statuses = ("error", "warn")
    labels = [f"{LOOKS['error'].sign} fails", f"{LOOKS['warn'].sign} warns"]
    rows: list[Row] = [
        {"series": word, "check": name, "n": words.count_status(entry, status), "order": order,
         "tip": f"{name}: {words.count_status(entry, status)} {word[2:]}"}
        for name, entry in zip(names, track.entries, strict=True)
        for order, (word, status) in enumerate(zip(labels, statuses, strict=True))
    ]  # fmt: skip

    def build(width: int) -> AnyChart:
        scale = alt.Scale(domain=labels, range=[_FILLS[status] for status in statuses])
        chart: alt.Chart = (
            alt.Chart(source(rows))
            .mark_bar(opacity=0.75)
            .encode(
                x=_axis(names, width),
                y=alt.Y("n:Q", title="rules", axis=alt.Axis(tickMinStep=1, tickCount=4)),
                color=alt.Color("series:N", scale=scale, legend=None),
                order="order:O",
                description=tip(),
            )
            .properties(width=width - 55, height=200)
        )
        return chart

    first, last = (
        words.count_status(entry, "error") + words.count_status(entry, "warn")
        for entry in (track.entries[0], track.entries[-1])
    )
    finding = f"Findings: {first} in the first check, {last} in the last"
    return figure(build, finding=finding, note="Dark red: rules that fail. Amber: rules that warn.")


def _rules(track: Track, names: list[str]) -> Figure | None:
    statuses = [dict(entry.statuses) for entry in track.entries]
    rules = sorted({rule for each in statuses for rule, status in each.items() if status in {"error", "warn"}})
    if not rules:
        return None
    rows: list[Row] = [
        {
            "rule": rule,
            "check": name,
            "status": each.get(rule, "not run"),
            "sign": LOOKS[each.get(rule, "not run")].sign,
            "tip": f"{rule}, {name}: {LOOKS[each.get(rule, 'not run')].word}",
        }
        for name, each in zip(names, statuses, strict=True)
        for rule in rules
    ]

    def build(width: int) -> AnyChart:
        room = side(rules, width)
        scale = alt.Scale(domain=list(_FILLS), range=list(_FILLS.values()))
        base = alt.Chart(source(rows)).encode(
            x=_axis(names, width), y=alt.Y("rule:N", sort=rules, title=None, axis=alt.Axis(ticks=False, domain=False))
        )
        return alt.layer(
            base.mark_rect(cornerRadius=3, opacity=0.3).encode(
                color=alt.Color("status:N", scale=scale, legend=None), description=tip()
            ),
            base.mark_text(size=12).encode(text="sign:N"),
        ).properties(width=width - room, height=alt.Step(24))

    moved = [rule for rule in rules if len({each.get(rule, "not run") for each in statuses}) > 1]
    finding = f"{plural(len(moved), 'rule')} changed: {', '.join(moved[:5])}" if moved else "No verdict changed"
    return figure(
        build, finding=finding, note="Rules that ever failed or warned. ✕ fails, ! warns, ✓ holds, – did not run."
    )


def _checks(track: Track, names: list[str]) -> Table:
    columns = (">check", "file", "model", "budget", ">fails", ">warns", ">accepted", "since the check before")
    return table(
        "The checks",
        columns,
        tuple(
            (
                name,
                entry.name,
                entry.model + (f", {entry.weights}" if entry.weights else ""),
                entry.budget,
                str(words.count_status(entry, "error")),
                str(words.count_status(entry, "warn")),
                str(entry.accepted),
                words.moved(entry),
            )
            for name, entry in zip(names, track.entries, strict=True)
        ),
    )


def _changes(history: History) -> Section | None:
    rows = tuple(
        (name, change.measure, percent(change.reference), percent(change.candidate), words.interval_of(change),
         words.p_value(change.adjusted), change.change if change.paired else f"{change.change}, not paired")
        for track in history.tracks
        for name, entry in zip(words.labels(track), track.entries, strict=True)
        for change in entry.changes
    )  # fmt: skip
    if not rows:
        return None
    titles = ("before", "after", "points (95 % interval)", "p, Holm")
    numbers = table(
        "Each check against the one before",
        (">check", "measure", *(f">{title}" for title in titles), "change"),
        rows,
        folded=True,
    )
    summary = (
        f"Paired tests on the same images, corrected by Holm over all {plural(history.tests, 'test')} of this history."
    )
    return Section("changes", "From check to check", summary, (numbers,))


def _skipped(history: History) -> Section | None:
    if not history.skipped:
        return None
    rows = tuple((reason,) for reason in history.skipped)
    return Section(
        "skipped", "Skipped", "Files that are no check, or no further one.", (table("Files", ("file",), rows),)
    )


def _method(history: History) -> Section:
    facts = Facts(
        (
            ("order", "the time recorded in each check, never that of its file"),
            ("tests", "McNemar's exact test and a bootstrap over samples; Fisher's where samples differ"),
            ("many tests", f"Holm's correction over {plural(history.tests, 'test')}, level {history.level:g}"),
        )
    )
    return Section("method", "How this was compared", "Intervals are 95 %.", (facts,))
