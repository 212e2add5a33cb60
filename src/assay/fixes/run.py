"""Apply the fixes that the findings of a check declare, each to a copy of its own, and measure again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.check.stages import STAGES, CheckContext
from assay.comparison import compare
from assay.data.dataset import ImageDataset
from assay.errors import InterruptedRunError, describe_error, one_line
from assay.fixes.fix import Change, Fix, FixContext, RefusedError
from assay.fixes.model_fixes import COMPRESSION, EVALUATION_MODE, PARAMETER_GROUPS, STATISTICS, TEMPERATURE
from assay.fixes.recurrent import CLIPPING, FORGET_BIAS
from assay.models.factorized import LayerFactors
from assay.records.base import Record
from assay.records.budget import Budget
from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix, Difference
from assay.records.failure import FailedMeasurement
from assay.records.finding import Remedy, Verdict
from assay.verdict import find_rule, judge

# in the order in which they are combined: statistics are those of the layers before they are factorised
_KNOWN = (STATISTICS, COMPRESSION, TEMPERATURE, EVALUATION_MODE, PARAMETER_GROUPS, FORGET_BIAS, CLIPPING)
FIXES: dict[str, Fix] = {fix.name: fix for fix in _KNOWN}
SIDE_EFFECTS = ("clean accuracy", "attacks")
OnFix = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Fixed:
    """The check with the result of each fix, and one copy of the model with the fixes of weights in it.

    ``model`` is None where no fix changed any weight. ``combined`` are the rules whose fixes it holds: one that fails
    after the others, or that spoils what they fixed, is left out, and its record says so.
    """

    checkup: Checkup
    model: nn.Module | None
    factorization: tuple[LayerFactors, ...] = ()
    combined: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Done:
    """A fix that was applied for ``verdict``, and what came of it."""

    fix: Fix
    verdict: Verdict
    record: AppliedFix
    change: Change


@checked
def apply_fixes(
    model: nn.Module,
    dataset: ImageDataset,
    checkup: Checkup,
    *,
    train: ImageDataset | None,
    train_note: str = "no training images are known: name them",
    budget: Budget,
    limit: int | None = None,
    on_fix: OnFix | None = None,
) -> Fixed:
    """Apply the fix that each failing or warning rule of ``checkup`` declares, and measure again.

    ``budget`` and ``limit`` are those of the check, so that the same samples are measured. Every fix works on a copy
    of its own and is judged by its rule, by the accuracy and by the attacks, paired with those of the check.
    ``train`` gives images to fix with; those that are also tested are left out first. ``model`` stays as it was found.
    """
    check = CheckContext.of(model, dataset, budget=budget, limit=limit, seed=checkup.seed, name=checkup.subject.model)
    untested, note = leave_out_tested(train, dataset, train_note)
    context = FixContext(model=model, check=check, train=untested, train_note=note)
    remedies = [(find_rule(verdict.rule).remedy, verdict) for verdict in checkup.verdicts]
    wanted = [
        (fix, verdict)
        for fix in FIXES.values()
        for name, verdict in remedies
        if name == fix.name and verdict.status in {"warn", "error"}
    ]
    records: dict[tuple[str, str], AppliedFix] = {}
    done: list[_Done] = []
    verdicts = {verdict.rule: verdict for verdict in checkup.verdicts}
    for place, (fix, verdict) in enumerate(wanted):
        if on_fix is not None:
            on_fix(fix.name, place, len(wanted))
        record, change, remedy = _apply(fix, verdict, context, checkup)
        records[fix.name, verdict.rule] = record
        if change is not None and change.model is not None and fix.changes == "weights":
            done.append(_Done(fix, verdict, record, change))
        if remedy is not None:
            verdicts[verdict.rule] = verdict.model_copy(update={"remedy": remedy})
    combination = _combine(done, context, checkup)
    records.update(((each.record.fix, each.record.rule), each.record) for each in combination.done)
    fixed = checkup.model_copy(
        update={
            "records": (*checkup.records, *records.values()),
            "verdicts": tuple(verdicts[verdict.rule] for verdict in checkup.verdicts),
        }
    )
    return Fixed(fixed, combination.model, combination.factorization, combination.rules)


def _apply(
    fix: Fix, verdict: Verdict, context: FixContext, checkup: Checkup
) -> tuple[AppliedFix, Change | None, Remedy | None]:
    started = time.perf_counter()
    refused = ""
    try:
        change = fix.apply(context)
        effects, again = _measure_again(fix, change, verdict, context, checkup)
    except InterruptedRunError:
        raise
    except Exception as error:  # whatever a copy of the model raises
        change, effects, again, refused = Change("nothing"), (), verdict, _reason(error)
    record = AppliedFix(
        rule=verdict.rule,
        fix=fix.name,
        changes=fix.changes,
        applied=change.applied,
        refused=refused,
        before=verdict.status,
        after=change.status or again.status,
        measured_before=verdict.measured,
        measured_after=change.measured or again.measured,
        effects=(*change.effects, *effects),
        readings=change.readings,
        seconds=time.perf_counter() - started,
    )
    if refused:
        return record, None, None
    value = change.value if change.status else again.value
    return record, change, Remedy(applied=change.applied, measured=record.measured_after, value=value)


def _reason(error: Exception) -> str:
    return one_line(error, limit=300) if isinstance(error, RefusedError) else describe_error(error)


def _measure_again(
    fix: Fix, change: Change, verdict: Verdict, context: FixContext, checkup: Checkup
) -> tuple[tuple[Difference, ...], Verdict]:
    """Run the stages that can see the fix on the copy; the paired differences, and the rule judged again."""
    if change.model is None:
        return (), verdict
    check = replace(context.check, model=change.model)
    names = {*fix.stages, *(SIDE_EFFECTS if fix.changes == "weights" else ())}
    records = list(_run(names, check))
    for record in records:
        if isinstance(record, FailedMeasurement):
            raise RefusedError(f"{record.place} could not run on the copy: {record.reason}")
    kinds = {type(record) for record in records}
    rest = tuple(record for record in checkup.records if type(record) not in kinds)
    judged = {each.rule: each for each in judge((*rest, *records))}
    before = _only(checkup, [record for record in checkup.records if type(record) in kinds])
    effects: tuple[Difference, ...] = ()
    if fix.changes == "weights":
        (versus,) = compare([before, _only(checkup, records)], seed=checkup.seed).versus
        effects = versus.differences
    return effects, judged[verdict.rule]


def _run_stages(
    names: Collection[str], check: CheckContext, checkup: Checkup
) -> tuple[list[Record], dict[str, Verdict]]:
    """The records of these stages measured anew, and the verdicts of all rules with them in place of the former."""
    records = list(_run(names, check))
    kinds = {type(record) for record in records}
    rest = tuple(record for record in checkup.records if type(record) not in kinds)
    return records, {each.rule: each for each in judge((*rest, *records))}


def _run(names: Collection[str], check: CheckContext) -> Iterator[Record]:
    """What the stages of these names measure, each on as many samples as in the check."""
    for stage in STAGES:
        if stage.name in names and not stage.is_left_out(check.budget):
            yield from stage.measure(check.for_stage(stage))


def _only(checkup: Checkup, records: Sequence[Record]) -> Checkup:
    return checkup.model_copy(update={"records": tuple(records), "verdicts": ()})


@dataclass(frozen=True, eq=False)
class _Combination:
    """One copy with the fixes of weights for ``rules`` in it; ``done`` are all of them, with their records."""

    model: nn.Module | None
    factorization: tuple[LayerFactors, ...]
    rules: tuple[str, ...]
    done: tuple[_Done, ...]


def _combine(done: Sequence[_Done], context: FixContext, checkup: Checkup) -> _Combination:
    """One fix after the other on one copy; every rule is judged again on it, and none may end worse than alone."""
    model: nn.Module | None = None
    factorization: tuple[LayerFactors, ...] = ()
    combined: list[_Done] = []
    all_of: list[_Done] = []
    for each in done:
        reason = ""
        try:
            again = each.change if model is None else each.fix.apply(replace(context, model=model))
            if again.model is not None and combined:
                reason = _find_spoilt([*combined, replace(each, change=again)], again.model, context, checkup)
        except InterruptedRunError:
            raise
        except Exception as error:  # whatever a copy of the model raises
            reason = _reason(error)
        if reason:
            applied = f"{each.record.applied}; left out of the combined weights: {reason}"
            all_of.append(replace(each, record=each.record.model_copy(update={"applied": applied})))
            continue
        model, factorization = again.model or model, again.factorization or factorization
        combined.append(replace(each, change=again))
        all_of.append(each)
    return _Combination(model, factorization, tuple(each.verdict.rule for each in combined), tuple(all_of))


def _find_spoilt(combined: Sequence[_Done], model: nn.Module, context: FixContext, checkup: Checkup) -> str:
    """The first rule that is judged worse on ``model``, which has all these fixes, than with its own fix alone."""
    names = {name for each in combined for name in each.fix.stages}
    _, judged = _run_stages(names, replace(context.check, model=model), checkup)
    for each in combined:
        status = each.change.status or judged[each.verdict.rule].status
        if status not in {"pass", "cannot tell", each.record.after}:
            return f"together {each.verdict.rule} would be {status}, alone {each.record.after}"
    return ""


def leave_out_tested(train: ImageDataset | None, tested: ImageDataset, note: str) -> tuple[ImageDataset | None, str]:
    """``train`` without the images that are, pixel for pixel, also in ``tested``; None, and why, where none is left."""
    if train is None:
        return None, note
    seen = set(map(_digest, tested.images))
    untested = torch.tensor([_digest(image) not in seen for image in train.images])
    if not bool(untested.any()):
        return None, "every training image is also tested"
    return (train if bool(untested.all()) else train.subset(untested)), ""


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).digest()
