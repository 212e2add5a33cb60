"""Checks over time: ordered by the time recorded in them, each compared with the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from assay.arguments import checked
from assay.comparison.checkups import LEVEL, correct_together
from assay.comparison.differences import find_differences
from assay.comparison.measures import list_accuracies
from assay.errors import InputError
from assay.records.attack import EpsilonCurve
from assay.records.checkup import Checkup
from assay.records.comparison import Difference, History, HistoryEntry, MeasuredShare, Track


@checked
def trace_history(
    checkups: Mapping[str, Checkup], *, folder: str, skipped: Sequence[str] = (), level: float = LEVEL, seed: int = 0
) -> History:
    """The checks of a folder (by their names in it) as tracks, one for each data set and its classes.

    They are ordered by ``Checkup.started``, not by file names or file times; ties by name. A copy of another check and
    a check whose time cannot be read are skipped, and named. Each check is tested against the one before it, with
    Holm's correction over all tests of the history. Raises :class:`InputError` where no check is left.
    """
    left_out = list(skipped)
    dated = _sort_by_time(checkups, left_out)
    if not dated:
        raise InputError(folder, expected="at least one check", got="; ".join(["none", *left_out[:1]]))
    groups: dict[tuple[str, str, tuple[str, ...], str], list[tuple[str, datetime, Checkup]]] = {}
    for name, moment, checkup in dated:
        subject = checkup.subject
        # The data of predictions with labels of their own have no name that tells one set from another.
        labels = subject.samples.labels if subject.samples is not None and not subject.samples.pixels else ""
        groups.setdefault((subject.data, subject.split, subject.classes, labels), []).append((name, moment, checkup))
    pairs = [pair for group in groups.values() for pair in pairwise(group)]
    families = [find_differences(before[2], after[2], seed=seed).differences for before, after in pairs]
    corrected = correct_together(families, level=level)
    changes = {after[0]: differences for (_, after), differences in zip(pairs, corrected, strict=True)}
    return History(
        folder=folder,
        tracks=tuple(
            Track(
                data=data,
                split=split,
                entries=tuple(_entry(name, moment, each, changes.get(name, ())) for name, moment, each in group),
            )
            for (data, split, *_), group in sorted(groups.items(), key=lambda item: -len(item[1]))
        ),
        level=level,
        tests=sum(map(len, families)),
        claims=tuple(sorted({verdict.rule: verdict.claim for _, _, c in dated for verdict in c.verdicts}.items())),
        skipped=tuple(left_out),
    )


def _sort_by_time(checkups: Mapping[str, Checkup], left_out: list[str]) -> list[tuple[str, datetime, Checkup]]:
    dated: list[tuple[str, datetime, Checkup]] = []
    seen: dict[str, str] = {}
    # Of two equal files the one named check.json, as a check writes it, counts as the original.
    for name, checkup in sorted(checkups.items(), key=lambda item: (not item[0].endswith("check.json"), item[0])):
        try:
            moment = datetime.fromisoformat(checkup.started)
        except ValueError:
            left_out.append(f"{name}: started: expected a time, got {checkup.started!r:.40}")
            continue
        text = checkup.model_dump_json()
        if text in seen:
            left_out.append(f"{name}: the same check as {seen[text]}")
            continue
        seen[text] = name
        dated.append((name, moment if moment.tzinfo else moment.replace(tzinfo=UTC), checkup))
    return sorted(dated, key=lambda each: (each[1], each[0]))


def _entry(name: str, moment: datetime, checkup: Checkup, changes: Sequence[Difference]) -> HistoryEntry:
    curve = checkup.first(EpsilonCurve)
    return HistoryEntry(
        name=name,
        started=moment.astimezone(UTC).isoformat(timespec="seconds"),
        model=checkup.subject.model,
        weights=checkup.subject.weights,
        budget=checkup.budget,
        assay=checkup.environment.assay,
        shares=tuple(
            MeasuredShare.of(measure.proportion.correct, measure.proportion.n, measure=measure.name)
            for measure in list_accuracies(checkup)
        ),
        median_epsilon=None if curve is None else curve.median_epsilon,
        statuses=tuple(sorted((verdict.rule, verdict.status) for verdict in checkup.verdicts)),
        accepted=sum(verdict.accepted is not None for verdict in checkup.verdicts),
        changes=tuple(changes),
    )
