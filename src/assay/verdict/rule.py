"""A rule: one claim about a model, and the function that holds records against it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from assay.records.base import Record
from assay.records.finding import Category, Status, Verdict

R = TypeVar("R", bound=Record)


class Evidence:
    """The records of one check, asked for by class."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)

    def each(self, kind: type[R]) -> Iterator[R]:
        """The records of one class, in the order they were measured."""
        return (record for record in self._records if isinstance(record, kind))

    def first(self, kind: type[R]) -> R | None:
        """The first record of one class, or None."""
        return next(self.each(kind), None)


@dataclass(frozen=True)
class Outcome:
    """What a rule saw: its status, the number in words and as a float, and where in the model or the data."""

    status: Status
    measured: str
    value: float
    where: str = ""


@dataclass(frozen=True)
class Rule:
    """One claim, judged from records alone.

    ``id``         stable for ever: ``A`` and three digits; the first digit is the category
    ``claim``      a sentence that is true when the rule passes
    ``threshold``  the boundary in words, in the units of ``Outcome.measured``
    ``needs``      the record classes ``judge`` reads; any that is missing makes the verdict "not run"
    ``judge``      evidence in, outcome out; None when the records hold nothing this rule could judge
    ``why``        what goes wrong for the user when the claim is false
    ``fix``        what to do then
    ``reference``  where the reader can learn more
    ``scored``     False when it judges the measurement, not the model
    ``remedy``     the name of the mechanical fix that ``assay check --apply-fixes`` applies, empty where there is none
    """

    id: str
    category: Category
    claim: str
    threshold: str
    needs: tuple[type[Record], ...]
    judge: Callable[[Evidence], Outcome | None]
    why: str
    fix: str
    reference: str
    scored: bool = True
    remedy: str = ""

    def verdict(self, evidence: Evidence) -> Verdict:
        """Judge, and put the outcome beside the claim."""
        missing = [kind_of(need) for need in self.needs if evidence.first(need) is None]
        outcome = None if missing else self.judge(evidence)
        if outcome is None:
            reason = f"no {', '.join(missing)} was measured" if missing else "nothing here that it applies to"
            outcome = Outcome("not run", reason, float("nan"))
        return Verdict(
            rule=self.id,
            category=self.category,
            status=outcome.status,
            claim=self.claim,
            measured=outcome.measured,
            threshold=self.threshold,
            value=outcome.value,
            where=outcome.where,
            why=self.why,
            fix=self.fix,
            reference=self.reference,
            evidence=tuple(kind_of(need) for need in self.needs),
            scored=self.scored,
        )


def kind_of(record: type[Record]) -> str:
    """The ``kind`` of a record class: its name in snake case."""
    return str(record.model_fields["kind"].default)


def grade(value: float, *, warn: float, error: float) -> Status:
    """``pass`` up to ``warn``, ``warn`` up to ``error``, ``error`` beyond; for values that should be small.

    NaN is an error: a number that cannot be computed is no reassurance. Negate the arguments for values that
    should be large.
    """
    if value <= warn:
        return "pass"
    return "warn" if value <= error else "error"


def percent(value: float) -> str:
    """0.9173 → '91.7 %'."""
    return f"{100 * value:.1f} %"


def name_some(names: Iterable[str], *, most: int = 3) -> str:
    """'a, b, c and 4 more'."""
    every = tuple(names)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest} more" if rest > 0 else "")
