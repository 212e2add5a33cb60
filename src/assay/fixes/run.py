"""Apply the fixes that the findings of a check declare, each to a copy of its own, and measure again."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from assay.arguments import checked
from assay.check.stages import STAGES, Budget, CheckContext
from assay.comparison import compare
from assay.data.dataset import ImageDataset
from assay.errors import InterruptedRunError, describe_error, one_line
from assay.fixes.fix import Change, Fix, FixContext, RefusedError
from assay.fixes.model_fixes import COMPRESSION, EVALUATION_MODE, PARAMETER_GROUPS, STATISTICS, TEMPERATURE
from assay.fixes.recurrent import CLIPPING, FORGET_BIAS
from assay.models.factorized import LayerFactors
from assay.records.base import Record
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
    """The check with the result of each fix, and one copy of the model with all fixes of weights in it.

    ``model`` is None where no fix changed any weight.
    """

    checkup: Checkup
    model: nn.Module | None
    factorization: tuple[LayerFactors, ...] = ()


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
    done: list[tuple[AppliedFix, Change | None]] = []
    verdicts = {verdict.rule: verdict for verdict in checkup.verdicts}
    for place, (fix, verdict) in enumerate(wanted):
        if on_fix is not None:
            on_fix(fix.name, place, len(wanted))
        record, change, remedy = _apply(fix, verdict, context, checkup)
        done.append((record, change))
        if remedy is not None:
            verdicts[verdict.rule] = verdict.model_copy(update={"remedy": remedy})
    fixed = checkup.model_copy(
        update={
            "records": (*checkup.records, *(record for record, _ in done)),
            "verdicts": tuple(verdicts[verdict.rule] for verdict in checkup.verdicts),
        }
    )
    return _combine(fixed, context, [(FIXES[record.fix], change) for record, change in done if change is not None])


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
    records = [record for stage in STAGES if stage.name in names for record in stage.measure(check)]
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


def _only(checkup: Checkup, records: Sequence[Record]) -> Checkup:
    return checkup.model_copy(update={"records": tuple(records), "verdicts": ()})


def _combine(checkup: Checkup, context: FixContext, changes: Sequence[tuple[Fix, Change]]) -> Fixed:
    """One copy with every fix of weights: that of the only one, or all of them applied one after the other."""
    of_weights = [(fix, change) for fix, change in changes if fix.changes == "weights" and change.model is not None]
    if not of_weights:
        return Fixed(checkup, None)
    if len(of_weights) == 1:
        change = of_weights[0][1]
        return Fixed(checkup, change.model, change.factorization)
    model = copy.deepcopy(context.model)
    factorization: tuple[LayerFactors, ...] = ()
    for fix, _ in of_weights:
        again = fix.apply(replace(context, model=model))
        model, factorization = again.model or model, again.factorization or factorization
    return Fixed(checkup, model, factorization)


def leave_out_tested(train: ImageDataset | None, tested: ImageDataset, note: str) -> tuple[ImageDataset | None, str]:
    """``train`` without the images that are, pixel for pixel, also in ``tested``; None, and why, where none is left."""
    if train is None:
        return None, note
    seen = {image.numpy().tobytes() for image in tested.images}
    untested = torch.tensor([image.numpy().tobytes() not in seen for image in train.images])
    if not bool(untested.any()):
        return None, "every training image is also tested"
    return (train if bool(untested.all()) else train.subset(untested)), ""
