"""Whether the answers of the attacks can be trusted."""

from __future__ import annotations

from assay.records.attack import AttackSanity
from assay.records.checkup import Checkup
from assay.report.parts import NUMBER, TEXT, Column, Section, Table
from assay.report.wording import NORMS, epsilon, listed, number, plural


def sanity_section(checkup: Checkup) -> Section | None:
    """Every reason for doubt: its value, its limit, and what it means."""
    records = list(checkup.each(AttackSanity))
    if not records:
        return None
    raised = [check for record in records for check in record.checks if check.raised]
    summary = (
        f"{plural(len(raised), 'doubt')} about the attacks: {listed([check.name for check in raised])}."
        if raised
        else "None of the known reasons to distrust the attacks was found."
    )
    return Section(
        "attack-sanity", "Can the attacks be trusted?", summary, tuple(map(_checks, records)), tuple(records)
    )


def _checks(record: AttackSanity) -> Table:
    order = sorted(record.checks, key=lambda check: (not check.raised, check.value is None))
    return Table(
        f"{NORMS[record.norm]} {epsilon(record.epsilon, record.norm)}, {plural(record.n, 'sample')}",
        (Column("doubt"), Column(""), Column("value", NUMBER), Column("limit", NUMBER), Column("what was seen", TEXT)),
        tuple(
            (
                check.name,
                "! raised" if check.raised else "– not run" if check.value is None else "✓ not raised",
                number(check.value),
                number(check.limit),
                check.detail,
            )
            for check in order
        ),
    )
