"""Findings that were accepted, and entries of the baseline that are out of date."""

from __future__ import annotations

from assay.records.checkup import Checkup
from assay.records.finding import Acceptance
from assay.report.parts import Column, Section, Table
from assay.report.standing import LOOKS
from assay.report.wording import count, plural


def accepted_section(checkup: Checkup) -> Section | None:
    """Each accepted finding with its reason, and each entry that accepts nothing with why."""
    accepted = [(verdict, verdict.accepted) for verdict in checkup.verdicts if verdict.accepted is not None]
    parts = []
    if accepted:
        parts.append(
            Table(
                "Accepted findings",
                tuple(Column(name) for name in ("rule", "verdict", "measured", "accepted because", "until")),
                tuple(
                    (verdict.rule, LOOKS[verdict.status].word, verdict.measured, entry.reason, _until(entry))
                    for verdict, entry in accepted
                ),
            )
        )
    if checkup.outdated:
        parts.append(
            Table(
                "Entries out of date",
                tuple(Column(name) for name in ("rule", "why it accepts nothing", "accepted because")),
                tuple((each.entry.rule, each.because, each.entry.reason) for each in checkup.outdated),
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
