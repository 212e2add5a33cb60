"""A rule: one claim about a model or a measurement, and the function that judges it from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar, get_args

from assay.errors import describe_error
from assay.intervals import newcombe_paired, share_bounds
from assay.records.accuracy import CleanAccuracy, Proportion
from assay.records.base import Record
from assay.records.failure import FailedMeasurement
from assay.records.finding import Category, Status, Verdict
from assay.wording import count, percent

R = TypeVar("R", bound=Record)
T = TypeVar("T")
CATEGORIES: dict[str, Category] = dict(zip("1234567", get_args(Category), strict=True))
LEARNED: frozenset[Category] = frozenset({"robustness", "invariance"})  # judged of a model that has learned something
SIDE = 0.025  # at a true value on its threshold a rule holds, and fails, at most so often
NEARLY_EXACT = 0.02  # the same of Newcombe's interval, which is approximate and errs a little more often than stated
EARLY = 0.001  # the same of a look at the first samples, after which the others may be left out
POWER = 0.8  # how often the number of images that a verdict names is to be enough
MOST_IMAGES = 10_000_000


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
    """A rule's status, the number it rests on in words and as a float, and where.

    What fits what was measured better than the texts of the rule takes their place: ``fix``, ``command``, ``mend``.
    ``short`` is the number in a few words, such as ``99.7 % → 0 %``; it follows the wording for failing.
    """

    status: Status
    measured: str
    value: float
    where: str = ""
    fix: str = ""
    short: str = ""
    command: str = ""
    mend: str = ""


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
        fault: one that is true when it warns or fails, in the field's term, such as "Broken by PGD".
        threshold: the boundary in words, in the units of ``RuleResult.measured``.
        needs: the record classes that ``judge`` reads; where one is missing the verdict is "not run", or "could not
            run" where its measurement failed.
        judge: evidence in, result out; None when the records hold nothing that this rule applies to.
        why: what goes wrong for the user when the claim is false.
        fix: what to do then.
        command: the command that shows it; MODEL and DATA stand for those of the check.
        mend: the command, or up to three lines of code, that mend it.
        limits: known limits: when the rule is wrong, and what it cannot see.
        examples: evidence that passes and evidence that fails: the rule's test, shown by ``assay explain``.
        reference: where the reader can learn more.
        scored: False when the rule judges the measurement, not the model.
        remedy: the mechanical fix that ``assay check --apply-fixes`` applies; empty where there is none.
        on_request: judged, and listed, only where its records were taken.
    """

    id: str
    claim: str
    fault: str
    threshold: str
    needs: tuple[type[Record], ...]
    judge: Callable[[Evidence], RuleResult | None]
    why: str
    fix: str
    command: str
    mend: str
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
                result = self._leave_out_near_chance(self.judge(evidence), evidence)
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
            fault=f"{self.fault}: {result.short}" if result.short else self.fault,
            command=result.command or self.command,
            mend=result.mend or self.mend,
            reference=self.reference,
            evidence=tuple(kind_of(need) for need in self.needs),
            scored=self.scored,
        )

    def _leave_out_near_chance(self, result: RuleResult | None, evidence: Evidence) -> RuleResult | None:
        """No verdict on what a model keeps under a change that is not clearly better than the commonest class.

        A finding about the measurement itself stays: it may be the reason why the model is no better.
        """
        clean = evidence.first(CleanAccuracy)
        if result is None or clean is None or self.category not in LEARNED:
            return result
        finding = result.status in {"warn", "error", "could not run"}
        return result if finding and not self.scored else near_chance(clean) or result


def reads(kind: type[R], judge: Callable[[R], RuleResult | None]) -> dict[str, Any]:
    """The fields ``needs`` and ``judge`` of a rule that reads nothing but the first record of one class."""
    return {"needs": (kind,), "judge": lambda evidence: judge(evidence.get(kind))}


def kind_of(record: type[Record]) -> str:
    """The ``kind`` of a record class: its name in snake case."""
    return str(record.model_fields["kind"].default)


def grade(value: float, *, warn: float, error: float) -> Status:
    """``pass`` up to ``warn``, ``warn`` up to ``error``, ``error`` beyond and for NaN; for values that should be small.

    Negate the arguments for values that should be large. For numbers without sampling noise; see :func:`grade_bounds`.
    """
    return grade_bounds(value, value, warn=warn, error=error)


def grade_bounds(low: float, high: float, *, warn: float, error: float = math.inf) -> Status:
    """The status of a value that should be small and lies between ``low`` and ``high``; ``error`` for NaN.

    ``pass`` where all of the interval lies up to ``warn``, ``warn`` or ``error`` where all of it lies beyond; where the
    interval contains ``warn`` the rule cannot tell. Negate and exchange the bounds for values that should be large.
    """
    if math.isnan(low) or math.isnan(high):
        return "error"
    if high <= warn:
        return "pass"
    if low <= warn:
        return "cannot tell"
    return "warn" if low <= error else "error"


def grade_share(correct: float, n: float, *, warn: float, error: float, chosen_of: int = 1) -> Status:
    """The status of a share ``correct`` of ``n`` that should be at least ``warn``, by its exact bounds.

    ``chosen_of`` is the number of shares of which it is the lowest: a fault is found in one of them by chance as often
    as in a single one (Bonferroni).
    """
    low = share_bounds(correct, n, level=SIDE)[0]
    high = share_bounds(correct, n, level=SIDE / chosen_of)[1]
    return grade_bounds(-high, -low, warn=-warn, error=-error)


def gain_bounds(before: Proportion, *, lost: int, gained: int, chosen_of: int = 1) -> tuple[float, float]:
    """The interval of the gain in accuracy where ``lost`` of the same samples became wrong and ``gained`` right."""
    lost, gained = min(max(lost, 0), before.correct), min(max(gained, 0), before.n - before.correct)
    kept, wrong = before.correct - lost, before.n - before.correct - gained
    return newcombe_paired(kept, lost, gained, wrong, z=NormalDist().inv_cdf(1 - NEARLY_EXACT / chosen_of))


def tell_needed(
    status: Status, *, distance: float, variance: float, n: int, of: str = "images", chosen_of: int = 1
) -> str:
    """``; about 1,200 images would settle it`` where ``status`` is "cannot tell", else nothing.

    So many that a mean with this ``variance`` and this ``distance`` from its threshold, as among the ``n`` at hand,
    leaves the threshold outside of its interval four times in five.
    """
    if status != "cannot tell":
        return ""
    z = NormalDist().inv_cdf(1 - SIDE / chosen_of) + NormalDist().inv_cdf(POWER)
    enough = max(variance * (z / distance) ** 2, n + 1) if distance else math.inf
    if not enough <= MOST_IMAGES:
        return "; too close to the threshold to be settled by more images"
    step = 10 ** max(0, math.floor(math.log10(enough)) - 1)
    return f"; about {count(math.ceil(enough / step) * step)} {of} would settle it"


def near_chance(clean: CleanAccuracy) -> RuleResult | None:
    """ "not run", and why, where the accuracy is not clearly better than that of the commonest class; else None."""
    commonest = commonest_share(clean)
    if commonest is None or share_bounds(clean.accuracy * clean.n, clean.n, level=SIDE)[0] > commonest:
        return None
    measured = (
        f"not judged: an accuracy of {percent(clean.accuracy)} (n = {count(clean.n)}) is not clearly better than "
        f"always answering the commonest class, {percent(commonest)}"
    )
    return RuleResult("not run", measured, math.nan, fix="See A101: the model has first to learn its classes.")


def commonest_share(clean: CleanAccuracy) -> float | None:
    """The accuracy of always answering the commonest class of the test set; None where its classes are not known."""
    most = max((group.n for group in clean.per_class), default=0)
    return most / clean.n if most and clean.n else None


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
