"""The page of ``assay history``: drawn from a :class:`History` alone."""

from __future__ import annotations

import altair as alt

from assay.records.comparison import History, Track
from assay.records.reading import made_inert
from assay.report import comparison_wording as words
from assay.report.charts import AnyChart, Row, colours, figure, shapes, shares, side, source, tip
from assay.report.page import Page, render
from assay.report.parts import Facts, Figure, KeyFigure, Section, Table, build_section, table
from assay.report.summary import LOOKS
from assay.wording import accuracy, clip, distinct, interval, percent, plural

_FILLS = {
    "error": "var(--error)",
    "warn": "var(--warn)",
    "pass": "var(--pass)",
    "cannot tell": "var(--undecided)",
    "could not run": "var(--unmeasured)",
    "not run": "var(--line)",
}


def render_history(history: History) -> str:
    """The whole page as text: one offline file."""
    history = made_inert(history)
    tracks = (_track(track, number) for number, track in enumerate(history.tracks))
    sections = (*tracks, _changes(history), _skipped(history), _method(history))
    checks, folder = plural(sum(len(track.entries) for track in history.tracks), "check"), clip(history.folder, 80)
    return render(
        Page(
            title=f"{folder}: {checks}",
            subject=f"{checks} in {folder}",
            headline=words.history_headline(history),
            text=words.history_tally(history),
            key_figures=_key_figures(history.tracks[0]),
            sections=tuple(section for section in sections if section is not None),
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
        was, amount = (words.count_status(entry, status) for entry in (track.entries[0], last))
        tone, detail = status if amount else "pass", f"{was} in the first check"
        figures.append(KeyFigure(f"{noun}, last", str(amount), detail, "track-0", status=tone))
    return tuple(figures)


def _track(track: Track, number: int) -> Section:
    names = words.labels(track)
    parts = [draw(track, names) for draw in (_accuracies, _findings, _rules, _checks)]
    checks, (first, last) = plural(len(track.entries), "check"), (track.entries[i].started[:10] for i in (0, -1))
    summary = f"{checks} from {first} to {last}, in the order of the time recorded in them."
    return build_section(f"track-{number}", f"{clip(track.data, 60)}, {track.split}", summary, *parts)


def _axis(names: list[str], width: int) -> alt.X:
    crowded = (max(map(len, names)) + 2) * len(names) * 7 > width - 60
    angle = alt.Axis(labelAngle=-40 if crowded else 0, grid=False, ticks=False, labelOverlap=True)
    return alt.X("check:N", sort=names, title=None, axis=angle, scale=alt.Scale(paddingOuter=0.3))


def _accuracies(track: Track, names: list[str]) -> Figure | None:
    measures = words.common_measures(track)
    titles = distinct(measures, length=44)
    rows: list[Row] = [
        {"series": title, "check": name, "accuracy": share.accuracy, "low": share.low, "high": share.high,
         "tip": f"{name}, {share.measure}: {accuracy(share)}"}
        for title, measure in zip(titles, measures, strict=True)
        for name, entry in zip(names, track.entries, strict=True)
        for share in entry.shares
        if share.measure == measure
    ]  # fmt: skip
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

    cells = (
        (name, *(next((accuracy(s) for s in entry.shares if s.measure == m), "–") for m in measures))
        for name, entry in zip(names, track.entries, strict=True)
    )
    numbers = table("Accuracies", (">check", *(f">{title}" for title in titles)), cells)
    note = "Bars: 95 % Wilson intervals. A line joins numbers that were measured in the same way."
    return figure(build, finding=_trend(track, measures[0]), note=note, table=numbers, full=True, legend=titles)


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
        y = alt.Y("n:Q", title="rules", axis=alt.Axis(tickMinStep=1, tickCount=4))
        colour = alt.Color("series:N", scale=scale, legend=None)
        chart: alt.Chart = alt.Chart(source(rows)).mark_bar(opacity=0.75)
        chart = chart.encode(x=_axis(names, width), y=y, color=colour, order="order:O", description=tip())
        return chart.properties(width=width - 55, height=200)

    first, last = (sum(words.count_status(track.entries[i], status) for status in statuses) for i in (0, -1))
    finding = f"Findings: {first} in the first check, {last} in the last"
    return figure(build, finding=finding, note="Dark red: rules that fail. Amber: rules that warn.")


def _rules(track: Track, names: list[str]) -> Figure | None:
    statuses = [dict(entry.statuses) for entry in track.entries]
    rules = sorted({rule for each in statuses for rule, status in each.items() if status in {"error", "warn"}})
    if not rules:
        return None
    rows: list[Row] = [
        {"rule": rule, "check": name, "status": status, "sign": look.sign, "tip": f"{rule}, {name}: {look.word}"}
        for name, each in zip(names, statuses, strict=True)
        for rule in rules
        for status in [each.get(rule, "not run")]
        for look in [LOOKS[status]]
    ]

    def build(width: int) -> AnyChart:
        room = side(rules, width)
        scale = alt.Scale(domain=list(_FILLS), range=list(_FILLS.values()))
        y = alt.Y("rule:N", sort=rules, title=None, axis=alt.Axis(ticks=False, domain=False))
        base = alt.Chart(source(rows)).encode(x=_axis(names, width), y=y)
        colour = alt.Color("status:N", scale=scale, legend=None)
        cells = base.mark_rect(cornerRadius=3, opacity=0.3).encode(color=colour, description=tip())
        signs = base.mark_text(size=12).encode(text="sign:N")
        return alt.layer(cells, signs).properties(width=width - room, height=alt.Step(24))

    moved = [rule for rule in rules if len({each.get(rule, "not run") for each in statuses}) > 1]
    finding = f"{plural(len(moved), 'rule')} changed: {', '.join(moved[:5])}" if moved else "No verdict changed"
    note = "Rules that ever failed or warned. ✕ fails, ! warns, ✓ holds, ≈ cannot tell, ? could not run, – not run."
    return figure(build, finding=finding, note=note)


def _checks(track: Track, names: list[str]) -> Table:
    columns = (">check", "file", "model", "budget", ">fails", ">warns", ">accepted", "since the check before")
    rows = (
        (name, entry.name, entry.model + (f", {entry.weights}" if entry.weights else ""), entry.budget,
         *(str(words.count_status(entry, status)) for status in ("error", "warn")), str(entry.accepted),
         words.moved(entry))
        for name, entry in zip(names, track.entries, strict=True)
    )  # fmt: skip
    return table("The checks", columns, rows)


def _changes(history: History) -> Section | None:
    rows = tuple(
        (name, change.measure, percent(change.reference), percent(change.candidate), words.interval_of(change),
         words.p_value(change.adjusted), change.change if change.paired else f"{change.change}, not paired")
        for track in history.tracks
        for name, entry in zip(words.labels(track), track.entries, strict=True)
        for change in entry.changes
    )  # fmt: skip
    titles = (">check", "measure", ">before", ">after", ">points (95 % interval)", ">p, Holm", "change")
    numbers = table("Each check against the one before", titles, rows, folded=True)
    tests = plural(history.tests, "test")
    summary = f"Paired tests on the same images, corrected by Holm over all {tests} of this history."
    return Section("changes", "From check to check", summary, (numbers,)) if rows else None


def _skipped(history: History) -> Section | None:
    files = table("Files", ("file",), ((reason,) for reason in history.skipped))
    summary = "Files that are no check, or no further one."
    return Section("skipped", "Skipped", summary, (files,)) if history.skipped else None


def _method(history: History) -> Section:
    facts = Facts(
        (
            ("order", "the time recorded in each check, never that of its file"),
            ("tests", "McNemar's exact test and exchanged samples; Fisher's and a bootstrap where samples differ"),
            ("many tests", f"Holm's correction over {plural(history.tests, 'test')}, level {history.level:g}"),
        )
    )
    return Section("method", "How this was compared", "Intervals are 95 %.", (facts,))
