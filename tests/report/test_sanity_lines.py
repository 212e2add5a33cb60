"""What the terminal says of the checks of an attack: only those that hold are counted as holding."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from assay.records.attack import AttackSanity, SanityCheck
from assay.records.finding import Status
from assay.report.terminal.attack import print_sanity
from assay.verdict.attack_sanity import judge_attacks

SANITY = AttackSanity(
    norm="linf",
    epsilon=8 / 255,
    n=64,
    checks=(
        SanityCheck(name="zero gradients", value=0.0, limit=0.01, detail="no gradient is zero"),
        SanityCheck(name="more steps help", value=0.0, limit=0.02, detail="as strong"),
    ),
    seconds=1.0,
)


def printed(statuses: Sequence[Status]) -> str:
    judged = [verdict for verdict in judge_attacks(SANITY) if verdict.status != "not run"][: len(statuses)]
    verdicts = [each.model_copy(update={"status": status}) for each, status in zip(judged, statuses, strict=True)]
    stream = io.StringIO()
    print_sanity(SANITY, verdicts, Console(file=stream, width=200))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("statuses", "expected", "missing"),
    [
        (("pass", "pass"), "✓ 2 checks of the attack itself find no gradient masking", "Cannot tell"),
        (("pass", "cannot tell"), "✓ 1 check of the attack itself", "✕"),
        (("cannot tell", "cannot tell"), "≈ Cannot tell: A2", "✓"),
        (("error", "pass"), "1 of 2 checks of the attack itself fail", "✓"),
    ],
)
def test_what_cannot_be_told_does_not_count_as_holding(statuses: Sequence[Status], expected: str, missing: str) -> None:
    text = printed(statuses)
    assert expected in text
    assert missing not in text
    assert ("✕ Fails A2" in text) == ("error" in statuses)
