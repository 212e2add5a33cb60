"""A rule: one claim about a model or a measurement, and the function that judges it from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from assay.errors import describe_error
from assay.records.base import Record
from assay.records.failure import FailedMeasurement
from assay.records.finding import Category, Status, Verdict

R = TypeVar("R", bound=Record)
T = TypeVar("T")
CATEGORIES: dict[str, Category] = dict(zip("123456", get_args(Category), strict=True))


class Evidence:
    """The records of one check, by class."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)

    def each(self, kind: type[R]) -> Iterator[R]:
        """The records of one class, in the order they were measured."""
        return (record for record in self._records if isinstance(record, kind))

    def first(self, kind: type[R]) -> R | None:
        """The first record of one class, or None."""
        return next(self.each(kind), None)

    def get(self, kind: type[R]) -> R:
        """The first record of one class; a rule is judged only where every class that it ``needs`` is there."""
        record = self.first(kind)
        if record is None:
            raise LookupError(f"no {kind_of(kind)} was measured")
        return record

    def failure(self, kind: type[Record], *, name: str = "") -> RuleResult | None:
        """ "could not run" where the measurement ``name``, or any that gives records of this class, failed."""
        for failed in self.each(FailedMeasurement):
            if kind_of(kind) in failed.missing and name in {"", failed.measurement}:
                measured = f"could not be measured: {failed.reason}"
                return RuleResult("could not run", measured, math.nan, where=failed.place, fix=failed.way_out)
        return None


@dataclass(frozen=True)
class RuleResult:
    """A rule's status, the number it rests on in words and as a float, where, and what to do instead of its fix."""

    status: Status
    measured: str
    value: float
    where: str = ""
    fix: str = ""


@dataclass(frozen=True)
class RuleExamples:
    """Records on which a rule passes, and records on which it warns or fails; built when called."""

    passing: Callable[[], tuple[Record, ...]]
    failing: Callable[[], tuple[Record, ...]]


@dataclass(frozen=True)
class Rule:
    """One claim, judged from records alone.

    Attributes:
        id: stable for ever: ``A`` and three digits, the first of which is the category.
        claim: a statement that is true when the rule passes.
        threshold: the boundary in words, in the units of ``RuleResult.measured``.
        needs: the record classes that ``judge`` reads; where one is missing the verdict is "not run", or "could not
            run" where its measurement failed.
        judge: evidence in, result out; None when the records hold nothing that this rule applies to.
        why: what goes wrong for the user when the claim is false.
        fix: what to do then.
        limits: known limits: when the rule is wrong, and what it cannot see.
        examples: evidence that passes and evidence that fails: the rule's test, shown by ``assay explain``.
        reference: where the reader can learn more.
        scored: False when the rule judges the measurement, not the model.
        remedy: the mechanical fix that ``assay check --apply-fixes`` applies; empty where there is none.
        on_request: judged, and listed, only where its records were taken.
    """

    id: str
    claim: str
    threshold: str
    needs: tuple[type[Record], ...]
    judge: Callable[[Evidence], RuleResult | None]
    why: str
    fix: str
    limits: str
    examples: RuleExamples
    reference: str
    scored: bool = True
    remedy: str = ""
    on_request: bool = False

    @property
    def category(self) -> Category:
        return CATEGORIES[self.id[1]]

    def verdict(self, evidence: Evidence) -> Verdict:
        """The result of ``judge`` with the texts of the rule."""
        missing = [need for need in self.needs if evidence.first(need) is None]
        result: RuleResult | None
        if missing:
            result = next(filter(None, map(evidence.failure, missing)), None)
        else:
            try:
                result = self.judge(evidence)
            except Exception as error:  # one rule that fails must not take the measurements with it
                result = RuleResult("could not run", f"could not be judged: {describe_error(error)}", math.nan)
        if result is None:
            names = ", ".join(map(kind_of, missing))
            reason = f"no {names} was measured" if missing else "nothing here that it applies to"
            result = RuleResult("not run", reason, math.nan)
        return Verdict(
            rule=self.id,
            category=self.category,
            status=result.status,
            claim=self.claim,
            measured=result.measured,
            threshold=self.threshold,
            value=result.value,
            where=result.where,
            why=self.why,
            fix=result.fix or self.fix,
            reference=self.reference,
            evidence=tuple(kind_of(need) for need in self.needs),
            scored=self.scored,
        )


def reads(kind: type[R], judge: Callable[[R], RuleResult | None]) -> dict[str, Any]:
    """The fields ``needs`` and ``judge`` of a rule that reads nothing but the first record of one class."""
    return {"needs": (kind,), "judge": lambda evidence: judge(evidence.get(kind))}


def kind_of(record: type[Record]) -> str:
    """The ``kind`` of a record class: its name in snake case."""
    return str(record.model_fields["kind"].default)


def grade(value: float, *, warn: float, error: float) -> Status:
    """``pass`` up to ``warn``, ``warn`` up to ``error``, ``error`` beyond and for NaN; for values that should be small.

    Negate the arguments for values that should be large.
    """
    if value <= warn:
        return "pass"
    return "warn" if value <= error else "error"


def largest(items: Iterable[T], *, by: Callable[[T], float]) -> T:
    """The item of the largest number; one that is not a number comes before all others, so that it is not passed over.

    Raises :class:`ValueError` where there is none.
    """
    return max(items, key=lambda item: (math.isnan(by(item)), by(item)))


def name_some(names: Iterable[str], *, most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    every = tuple(names)
    rest = len(every) - most
    return ", ".join(every[:most]) + (f" and {rest} more" if rest > 0 else "")
