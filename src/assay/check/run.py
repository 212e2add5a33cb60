"""Run the stages in order, keep each as it ends, judge the records, and put it all into one document."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from torch import nn

from assay.arguments import checked
from assay.check.attempt import attempt
from assay.check.leaks import measure_leaks
from assay.check.plan import Schedule, estimate, fit, keep_plan, unbounded
from assay.check.stages import BUDGETS, STAGES, CheckContext, CheckStage
from assay.data.dataset import ImageDataset, identify_samples, to_unit_range
from assay.data.keeping import check_format, write_predictions
from assay.errors import AssayError, InputError, ModelError, OptionError, describe_error
from assay.models.calls import notes_on
from assay.records.base import Frozen, Record
from assay.records.budget import Budget, CheckPlan
from assay.records.checkup import Checkup, Measurement, Stage, Subject
from assay.records.configuration import ModeAudit
from assay.records.failure import FailedMeasurement
from assay.runtime import describe_environment, device_of
from assay.runtime.memory import BatchMemory, batch_memory, run_in_memory, tell_halvings
from assay.runtime.processes import ALONE, Processes
from assay.runtime.sharing import unchanged_models
from assay.runtime.store import ResumableStore, fingerprint
from assay.verdict import judge

T = TypeVar("T")
PARTIAL = "check.partial"  # the folder of finished stages, beside the report that takes its place
PLAN = "plan"  # its file among them
CLEAN = "clean accuracy"
OnStage = Callable[[str, int, int], None]  # (name, its number from 0, how many there are)


class FinishedStage(Frozen):
    """One stage and the records it gave."""

    stage: Stage
    records: tuple[Measurement, ...]


@checked
def run_check(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    name: str = "model",
    weights: str | None = None,
    budget: Budget | str = "standard",
    limit: int | None = None,
    seed: int = 0,
    history: Iterable[Record] = (),
    folder: Path | None = None,
    resume: bool = False,
    within: float | None = None,
    reserved: float = 0.0,
    on_stage: OnStage | None = None,
    on_plan: Callable[[CheckPlan], None] | None = None,
    processes: Processes = ALONE,
    notes: Iterable[str] = (),
    keep_predictions: Path | None = None,
    memory: int | None = None,
    against: ImageDataset | None = None,
) -> Checkup:
    """Run every stage of the check on ``model``, judge the records, and return both as one document.

    What cannot be measured becomes a :class:`FailedMeasurement` with its reason, whatever the model raised, and the
    rules that rest on it the status "could not run"; only the mode audit and the clean accuracy must succeed.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: the test set, K classes.
        name, weights: what the report calls the model and the file of its weights.
        budget: ``quick``, ``standard``, ``full``, or sample counts of your own.
        limit: most samples of every stage but the clean accuracy, which is cheap and uses all that the budget allows.
        seed: of attacks, transformations and the samples drawn.
        history: records that came with the model (its training run), judged with those measured here.
        folder: keeps finished stages until the check is done; None keeps nothing.
        resume: take over the finished stages of an interrupted check of the same model, data, budget and seed.
        within: seconds that the check is to take, in place of a budget: the model is timed, and every stage gets as
            many images as its evidence is worth; after each stage the others are planned anew.
        reserved: seconds of these for what comes before and after, such as drawing the page.
        on_stage: called before each stage with its name, its number from 0, and the number of stages.
        on_plan: called with the time that is expected of every stage, before the first and after each; that costs
            some hundredths of the time of the check.
        processes: share the stages and the clean accuracy out among them; all hold ``dataset``, and all get the whole
            document.
        notes: what else is to be known of the model and the data, such as what was guessed when they were opened.
        keep_predictions: a file .csv, .parquet or .npz for the logits of the samples of the clean accuracy, with ids
            and labels; :func:`assay.check_predictions` gives the same clean accuracy from it.
        memory: most bytes of the whole process: batches are smaller from the start, and Linux refuses what goes beyond.
            With and without it a stage whose memory runs out is measured again in batches of half the size.
        against: the training images: duplicates of the tested images are looked for in them, and each accuracy is told
            again without the pictures that have one.

    Returns:
        The document: subject, environment, stages, ``records`` and ``verdicts``; ``checkup.first(CleanAccuracy)``
        picks a record by its class, and ``checkup.complete`` tells whether everything could be measured.

    Raises:
        ModelError: the model cannot take the images, returns no logits of the right width, or holds weights that are
            not finite.
        OptionError: no budget has this name, or ``folder`` holds the stages of another check and ``resume`` is set.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=32)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> budget = assay.check.Budget(name="tiny", clean=32, attacked=4, probed=4, steps=1, sanity_samples=2)
        >>> checkup = assay.run_check(model, data, budget=budget)
        >>> {verdict.status for verdict in checkup.verdicts} <= {"pass", "warn", "error", "cannot tell", "not run"}
        True
        >>> checkup.complete
        True
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    budget = _choose_budget(budget, within=within, processes=processes)
    if keep_predictions is not None:
        check_format(keep_predictions)
    context = CheckContext.of(model, dataset, budget=budget, limit=limit, seed=seed, name=name, processes=processes)
    store = None
    if folder is not None:
        identity = {
            "name": name,
            "model": fingerprint(model=model),
            "classes": list(dataset.classes),
            "data": _of_leader(partial(fingerprint, dataset=dataset), processes),
            "budget": budget.model_dump() if within is None else {"within": within},
            "limit": limit,
            "seed": seed,
            "assay": version("assay"),
        }
        store = ResumableStore(folder / PARTIAL, identity)
        store.claim(replace=not resume)
    with batch_memory(memory) as room, unchanged_models():
        schedule, stages = None, STAGES
        if within is not None:
            schedule = _fit(context, store, within=within, reserved=reserved, started=clock, resume=resume)
            stages = tuple(schedule.stages)
        # Every process runs the required ones: where one fails, nobody need begin.
        own = [(n, each) for n, each in enumerate(stages) if each.required or n % processes.world == processes.rank]
        done = {} if store is None or not resume else _read_stages(store, (stage for _, stage in own))
        if within is None and on_plan is not None and processes.world == 1:
            with suppress(AssayError):  # what fails on such a model is notes by the stage that fails
                schedule = estimate(context, [stage for stage in stages if stage.name not in done], started=clock)
        for number, stage in own:
            if schedule is not None and on_plan is not None:
                on_plan(schedule.plan)
            if on_stage is not None:
                on_stage(stage.name, number, len(stages))
            if stage.name not in done:
                done[stage.name] = _measure(stage, context, schedule, store, room)
    shared = {name: finished for part in reversed(processes.gather(done)) for name, finished in part.items()}
    plan = CheckPlan(budget=budget) if schedule is None or within is None else schedule.plan
    if plan.budget is not context.budget:
        context = replace(context, budget=plan.budget)
    context = context.for_stage(next(stage for stage in STAGES if stage.name == CLEAN))
    if keep_predictions is not None and processes.leads:
        write_predictions(keep_predictions, context.outputs.logits, context.clean, model=name)
    measured = [shared[stage.name] for stage in STAGES]
    records = (*history, *(record for finished in measured for record in finished.records))
    if against is not None:
        records += tuple(measure_leaks(context.measured, against, records, processes=processes))
    notes = (*notes, *(finished.stage.note for finished in measured if finished.stage.note))
    checkup = Checkup(
        subject=_of_leader(partial(_describe_subject, context, name=name, weights=weights, notes=notes), processes),
        budget=budget.name,
        plan=plan,
        seed=seed,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - clock,
        environment=describe_environment(device_of(model)),
        stages=tuple(finished.stage for finished in measured),
        records=records,
        verdicts=judge(records),
    )
    if store is not None and processes.leads:
        store.close()
    return checkup


def _of_leader(measure: Callable[[], T], processes: Processes) -> T:
    """What the first process measures of the whole set, for all."""
    value: T = processes.gather(measure() if processes.leads else None)[0]  # type: ignore[assignment]
    return value


def _choose_budget(budget: Budget | str, *, within: float | None, processes: Processes) -> Budget:
    if within is not None:
        if not 0 < within < math.inf:
            raise OptionError("within", expected="a number of seconds above 0", got=within)
        if processes.world > 1:
            raise OptionError("within", expected="one process", got=f"{processes.world} that share the stages")
        return unbounded(within)
    if isinstance(budget, Budget):
        unknown = budget.samples.keys() - {stage.name for stage in STAGES if stage.effort is not None}
        if unknown:
            names = ", ".join(stage.name for stage in STAGES if stage.effort is not None)
            raise OptionError("budget.samples", expected=f"some of: {names}", got=repr(min(unknown)))
        return budget
    if budget not in BUDGETS:
        raise OptionError("budget", expected=f"one of: {', '.join(BUDGETS)}", got=repr(budget))
    return BUDGETS[budget]


def _key(stage: CheckStage) -> str:
    return stage.name.replace(" ", "-")


def _read_stages(store: ResumableStore, stages: Iterable[CheckStage]) -> dict[str, FinishedStage]:
    """The finished ones; to measure anew what is missing, damaged, or of another version loses nothing but time."""
    finished = {}
    for stage in stages:
        with suppress(OSError, ValidationError):
            finished[stage.name] = FinishedStage.model_validate_json(store.path(_key(stage)).read_bytes())
    return finished


def _fit(
    context: CheckContext,
    store: ResumableStore | None,
    *,
    within: float,
    reserved: float,
    started: float,
    resume: bool,
) -> Schedule:
    """The schedule of the plan in ``store`` where that is resumed, else a new one."""
    if store is not None and resume:
        with suppress(OSError, ValidationError):
            plan = CheckPlan.model_validate_json(store.path(PLAN).read_bytes())
            return keep_plan(plan, STAGES, started=started)
    schedule = fit(context, STAGES, within=within, reserved=reserved, started=started)
    if store is not None:
        store.write(PLAN, schedule.plan.model_dump_json())
    return schedule


def _measure(
    stage: CheckStage,
    context: CheckContext,
    schedule: Schedule | None,
    store: ResumableStore | None,
    room: BatchMemory,
) -> FinishedStage:
    """Run one stage on the images that it is given, and keep it and the plan for the others."""
    if schedule is not None and schedule.budget is not context.budget:
        context = replace(context, budget=schedule.budget)
    try:
        finished = _run_stage(stage, context, room)
    except InputError:  # the same command would fail again: there is nothing to resume
        if store is not None:
            store.close()
        raise
    if schedule is not None:
        schedule.finish(stage, finished.stage.seconds)
    if store is not None:
        if schedule is not None and schedule.adapts:
            store.write(PLAN, schedule.plan.model_dump_json())
        if not any(isinstance(each, FailedMeasurement) for each in finished.records):
            store.write(_key(stage), finished.model_dump_json())  # what failed is tried again
    return finished


def _run_stage(stage: CheckStage, context: CheckContext, room: BatchMemory) -> FinishedStage:
    clock, before = time.perf_counter(), room.halvings
    records: tuple[Record, ...]
    if stage.is_left_out(context.budget):
        records = (_left_out(stage, context.budget),)
    elif stage.required:
        try:
            records = run_in_memory(lambda: tuple(stage.measure(context.for_stage(stage))))
        except AssayError:
            raise
        except Exception as error:
            raise ModelError(stage.name, expected="a model that can be run", got=describe_error(error)) from error
    else:
        measure = partial(_in_memory, stage, context.for_stage(stage))
        records = tuple(attempt(measure, stage=stage.name, name=stage.name, gives=stage.gives))
    for record in records:
        if isinstance(record, ModeAudit) and record.non_finite_parameters:
            raise ModelError(record.non_finite_parameters[0], expected="finite weights", got="NaN or infinity")
    failed = [record for record in records if isinstance(record, FailedMeasurement)]
    skipped = failed[0].reason if failed and len(failed) == len(records) else None
    halvings = room.halvings - before
    note = f"{stage.name}: {tell_halvings(halvings)}" if halvings else None
    result = Stage(name=stage.name, seconds=time.perf_counter() - clock, skipped=skipped, note=note)
    return FinishedStage.model_validate({"stage": result, "records": records})


def _in_memory(stage: CheckStage, context: CheckContext) -> Iterator[Record]:
    """The records of a stage, measured again in smaller batches where memory runs out; those before another failure."""
    made: list[Record] = []

    def measure() -> None:
        made.clear()
        made.extend(stage.measure(context))

    try:
        run_in_memory(measure)
    except Exception:
        yield from made
        raise
    yield from made


def _left_out(stage: CheckStage, budget: Budget) -> FailedMeasurement:
    return FailedMeasurement(
        stage=stage.name,
        measurement=stage.name,
        missing=tuple(str(kind.model_fields["kind"].default) for kind in stage.gives),
        reason=f"no time {budget.name} for as many images as tell something",
        way_out="Give more time (--within), or measure it alone.",
    )


def _describe_subject(context: CheckContext, *, name: str, weights: str | None, notes: Iterable[str]) -> Subject:
    data = context.dataset
    reading = notes_on(context.model, to_unit_range(data.images[:2]), classes=data.classes)
    return Subject(
        model=name,
        weights=weights,
        data=data.name,
        split=data.split,
        n=len(context.clean),
        available=len(data),
        classes=data.classes,
        image_shape=data.shape,
        samples=identify_samples(data),
        notes=tuple(dict.fromkeys((*notes, *data.notes, *reading))),
    )
