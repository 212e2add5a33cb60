"""How verdicts add up: their order, their words and signs, and the state of each category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from assay.records.finding import Category, Status, Verdict


@dataclass(frozen=True)
class Look:
    """How a status is told without colour: a word for one verdict, a sign, and a name for style sheets."""

    word: str
    sign: str
    name: str


LOOKS: dict[Status, Look] = {
    "error": Look("Fails", "✕", "error"),
    "warn": Look("Warning", "!", "warn"),
    "pass": Look("Holds", "✓", "pass"),
    "not run": Look("Did not run", "–", "skipped"),
}
SEVERITY: tuple[Status, ...] = ("error", "warn", "not run", "pass")


@dataclass(frozen=True)
class CategoryState:
    """One of the six categories: the worst status of its verdicts (``not run`` when none was judged)."""

    category: Category
    status: Status
    verdicts: tuple[Verdict, ...]

    @property
    def summary(self) -> str:
        """``1 fails · 2 hold``."""
        words = {"error": "fail", "warn": "warn", "pass": "hold", "not run": "not run"}
        counts = [(status, sum(verdict.status == status for verdict in self.verdicts)) for status in SEVERITY]
        return " · ".join(f"{n} {words[status]}" for status, n in counts if n) or "nothing measured"


def in_order(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Worst first; within a status in the order of the rules."""
    return sorted(verdicts, key=lambda verdict: (SEVERITY.index(verdict.status), verdict.rule))


def states(verdicts: Sequence[Verdict]) -> tuple[CategoryState, ...]:
    """The six categories, each with its verdicts and the worst status among those that ran."""
    found = []
    for category in get_args(Category):
        own = tuple(in_order([verdict for verdict in verdicts if verdict.category == category]))
        ran = [verdict.status for verdict in own if verdict.status != "not run"]
        worst: Status = min(ran, key=SEVERITY.index) if ran else "not run"
        found.append(CategoryState(category, worst, own))
    return tuple(found)


def tally(verdicts: Sequence[Verdict]) -> dict[Status, int]:
    """How many verdicts have each status, every status present."""
    return {status: sum(verdict.status == status for verdict in verdicts) for status in SEVERITY}


def tally_sentence(verdicts: Sequence[Verdict]) -> str:
    """``Of 14 rules 3 fail, 2 warn, 8 hold and 1 did not run.``"""
    if not verdicts:
        return "No rule was judged."
    counts = tally(verdicts)
    forms = {"error": ("fails", "fail"), "warn": ("warns", "warn"), "pass": ("holds", "hold")}
    parts = [f"{n} {forms[status][n != 1]}" for status, n in counts.items() if n and status in forms]
    # "not run" comes last in the sentence, although it stands above the passes on the page
    parts += [f"{counts['not run']} did not run"] if counts["not run"] else []
    rules = "rule" if len(verdicts) == 1 else "rules"
    joined = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    return f"Of {len(verdicts)} {rules}, {joined}."
