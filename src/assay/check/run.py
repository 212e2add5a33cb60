"""Run the stages in order, keep each as it ends, judge the records, and put it all into one document."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from torch import nn

from assay.check.journal import FinishedStage, Journal, fingerprint
from assay.check.stages import BUDGETS, STAGES, Bench, Budget
from assay.data.dataset import ImageDataset, identify_samples
from assay.data.sources import load_dataset
from assay.errors import AssayError, ModelError
from assay.records.base import Record
from assay.records.checkup import Checkup, Stage, Subject
from assay.records.configuration import ModeAudit
from assay.records.training import TrainingRun
from assay.runtime import describe_environment, device_of
from assay.runtime.processes import ALONE, Processes
from assay.training.classifier import train_classifier
from assay.training.metrics import OnStep
from assay.training.recipes import load_recipe
from assay.verdict import judge

OnStage = Callable[[str, int, int], None]  # (name, its number from 0, how many there are)


def run_check(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    name: str = "model",
    weights: str | None = None,
    budget: Budget = BUDGETS["standard"],
    limit: int | None = None,
    seed: int = 0,
    context: Iterable[Record] = (),
    folder: Path | None = None,
    resume: bool = False,
    on_stage: OnStage | None = None,
    processes: Processes = ALONE,
) -> Checkup:
    """Put ``model`` to the test on ``dataset`` and judge it. The model is left as it was found.

    ``limit`` bounds the samples of every stage but the clean accuracy, which is cheap and uses all that the budget
    allows. ``context`` are records that came with the model (its training run). ``folder`` keeps finished stages;
    with ``resume`` those of an interrupted check of the same model, data, budget and seed are taken over. Several
    ``processes`` share the stages out among them, and all get the whole checkup.

    Raises :class:`ModelError` when the model cannot take the images, returns no logits of the right width, or holds
    weights that are not finite. A later stage that cannot run is recorded as skipped, with its reason.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    bench = Bench.of(model, dataset, budget=budget, limit=limit, seed=seed, name=name)
    journal = Journal(
        folder,
        fingerprint=fingerprint(model, dataset, budget=budget.model_dump(), limit=limit, seed=seed) if folder else "",
        resume=resume,
        rank=processes.rank,
    )
    done: dict[str, FinishedStage] = {}
    for number, stage in enumerate(STAGES):
        if not stage.required and number % processes.world != processes.rank:
            continue  # a required one is everybody's: where it fails, nobody need begin
        if on_stage is not None:
            on_stage(stage.name, number, len(STAGES))
        page = journal.find(stage.name)
        if page is None:
            page = _run_stage(stage.name, stage.measure, bench, required=stage.required)
            journal.add(page)
        done[stage.name] = page
    everybodys = {name: page for theirs in reversed(processes.gather(done)) for name, page in theirs.items()}
    pages = [everybodys[stage.name] for stage in STAGES]
    records = (*context, *(record for page in pages for record in page.records))
    checkup = Checkup(
        subject=_describe_subject(bench, name=name, weights=weights),
        budget=budget.name,
        seed=seed,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - clock,
        environment=describe_environment(device_of(model)),
        stages=tuple(page.stage for page in pages),
        records=records,
        verdicts=judge(records),
    )
    if processes.leads:
        journal.close()
    return checkup


def _run_stage(
    name: str, measure: Callable[[Bench], Iterable[Record]], bench: Bench, *, required: bool
) -> FinishedStage:
    clock = time.perf_counter()
    skipped = None
    records: tuple[Record, ...] = ()
    try:
        records = tuple(measure(bench))
    except (AssayError, RuntimeError) as error:  # torch raises RuntimeError for what a model cannot do
        if required:
            raise
        skipped = " ".join(str(error).split())[:300]
    for record in records:
        if isinstance(record, ModeAudit) and record.non_finite_parameters:
            raise ModelError(record.non_finite_parameters[0], expected="finite weights", got="NaN or infinity")
    stage = Stage(name=name, seconds=time.perf_counter() - clock, skipped=skipped)
    return FinishedStage.model_validate({"stage": stage, "records": records})


def _describe_subject(bench: Bench, *, name: str, weights: str | None) -> Subject:
    data = bench.dataset
    return Subject(
        model=name,
        weights=weights,
        data=data.name,
        split=data.split,
        n=len(bench.clean),
        available=len(data),
        classes=data.classes,
        image_shape=data.shape,
        samples=identify_samples(data),
    )


def train_on_digits(*, seed: int = 0, on_step: OnStep | None = None) -> tuple[nn.Module, TrainingRun]:
    """A small network trained on the training split of the built-in digits, in seconds, and how that went."""
    train = load_dataset("digits", split="train")
    trained = train_classifier(train, recipe=load_recipe("digits"), seed=seed, on_step=on_step)
    return trained.model, trained.run
