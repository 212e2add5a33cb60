"""How everything was measured, and records without a section of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from assay.records.attack import AttackSanity, Norm, RobustAccuracy
from assay.records.base import Record
from assay.records.checkup import Checkup, Subject
from assay.records.failure import FailedMeasurement
from assay.records.gradients import DepthTrace
from assay.records.recurrence import TimeTrace
from assay.records.training import OptimizerAudit
from assay.report.parts import Bars, Facts, Listing, Section, Source, Table, build_section, table
from assay.report.plan_wording import points
from assay.wording import clip, count, kind_title, listed, norm, plural, seconds

MOST_CHARACTERS = 60_000
ENSEMBLES = {"standard", "adaptive"}


def measured_section(checkup: Checkup) -> Section:
    """Data, seed, budget, machine, and every stage with its time or the reason why it did not run."""
    subject, machine = checkup.subject, checkup.environment
    facts = (
        ("model", subject.model + (f", weights {subject.weights}" if subject.weights else "")),
        ("data", f"{subject.data}, {subject.split}: {count(subject.n)} of {count(subject.available)} samples"),
        *_images(subject),
        *(("note", note) for note in subject.notes),
        *((("budget", checkup.budget), ("seed", str(checkup.seed))) if subject.source == "model" else ()),
        ("started", checkup.started),
        ("took", seconds(checkup.seconds)),
        ("machine", f"{machine.processor}, {machine.platform}, {plural(machine.cores, 'core')}, "
         f"{plural(machine.threads, 'thread')}, {machine.memory_gib:.3g} GiB, device {machine.device}"),
        ("software", f"assay {machine.assay}, Python {machine.python}, torch {machine.torch}, numpy {machine.numpy}"),
    )  # fmt: skip
    ran = [stage for stage in checkup.stages if stage.skipped is None]
    longest = max((stage.seconds for stage in ran), default=0.0)
    bars = Bars(
        "Time of each stage",
        ("stage", "time"),
        tuple((stage.name, stage.seconds / longest if longest > 0 else 0.0, seconds(stage.seconds)) for stage in ran),
    )
    failed = [failure.place for failure in checkup.each(FailedMeasurement)]
    failed += [stage.name for stage in checkup.stages if stage.skipped is not None and stage.name not in failed]
    summary = (
        f"{listed(failed).capitalize()} did not run." if failed else "Every stage of this budget ran."
    ) + " Intervals are 95 % Wilson intervals. The same seed on the same machine gives the same numbers."
    if subject.source == "predictions":
        summary = "No model was run: everything here follows from its predictions. Intervals are 95 % Wilson intervals."
    if not checkup.stages:  # of a trace, which has none
        summary = "The same seed on the same machine gives the same numbers."
    gaps = _not_measured(checkup)
    parts = (Facts(facts), bars if ran else None, *_planned(checkup), gaps if gaps.items else None)
    return build_section("measured", "How this was measured", summary, *parts)


def _planned(checkup: Checkup) -> Iterator[Table]:
    """What the stages were given of a wall time, what they took of it, and how wide their intervals became."""
    plan = checkup.plan
    if plan is None or plan.within is None:
        return
    took = {stage.name: stage.seconds for stage in checkup.stages}
    rows = [
        (stage.name, count(stage.samples), count(stage.usual or 0), seconds(stage.seconds), seconds(took[stage.name]),
         points(stage.half_width), points(stage.usual_half_width))
        for stage in plan.stages
        if stage.samples is not None
    ]  # fmt: skip
    columns = ("stage", ">images", ">of standard", ">planned", ">took", ">95 % interval", ">of standard")
    yield table(f"What each stage was given {plan.budget.name}, beside the budget standard", columns, rows)


def failures_section(failures: Sequence[FailedMeasurement]) -> Section:
    """What was asked for and could not be measured: the reason, and what to do about it."""
    rows = ((each.place, each.reason, each.way_out) for each in failures)
    summary = f"{plural(len(failures), 'measurement')} failed. No verdict rests on what is missing."
    parts = (table("Measurements that failed", ("measurement", "reason", "way out"), rows),)
    return Section("could-not-run", "Could not run", summary, parts, records=tuple(failures))


def list_unmeasured(checkup: Checkup) -> tuple[str, ...]:
    """What a reader might wrongly take for granted, a statement each."""
    return tuple(text for text, _ in _not_measured(checkup).items)


def _not_measured(checkup: Checkup) -> Listing:
    """What a reader might wrongly take for granted: stages, rules, samples, threats and attacks left out."""
    items = [(f"{each.place.capitalize()}: {each.reason}", "could-not-run") for each in checkup.each(FailedMeasurement)]
    failing = {each.stage for each in checkup.each(FailedMeasurement)}
    items += [
        (f"{stage.name.capitalize()}: {stage.skipped}", "")
        for stage in checkup.stages
        if stage.skipped is not None and stage.name not in failing
    ]
    items += [
        (f"{verdict.rule} did not run: {verdict.measured}", verdict.rule)
        for verdict in checkup.verdicts
        if verdict.status == "not run"
    ]
    subject, attacks = checkup.subject, list(checkup.each(RobustAccuracy))
    if subject.n < subject.available:
        items.append((f"{count(subject.available - subject.n)} of {count(subject.available)} samples", ""))
    attacked = max((attack.n for attack in attacks), default=0)
    if 0 < attacked < subject.n:
        items.append((f"attacks on {count(subject.n - attacked)} of the {count(subject.n)} samples", "robust_accuracy"))
    norms = {attack.norm for attack in attacks}
    if norms:
        others = [norm(name) for name in get_args(Norm) if name not in norms]
        items += [(f"attacks within {listed(others)} balls: `assay attack --norm`", "")] if others else []
        if not {attack.attack for attack in attacks} & ENSEMBLES:
            items.append(("the ensemble of attacks: `assay attack --attack standard`", ""))
        if checkup.first(AttackSanity) is None:
            items.append(("whether the attacks themselves can be trusted", ""))
        items.append(("a proof: an attack that fails shows no more than that it failed", ""))
    traced: tuple[type[Record], ...] = (DepthTrace, TimeTrace, OptimizerAudit)
    if not any(checkup.first(kind) is not None for kind in traced):
        items.append(("gradients in training, over time, and the optimizer: `assay trace`", ""))
    return Listing("What was not measured", tuple(items))


def _images(subject: Subject) -> tuple[tuple[str, str], ...]:
    if subject.modality != "images":
        return ()
    classes = ("classes", f"{count(len(subject.classes))}: {clip(', '.join(subject.classes), 300)}")
    if subject.image_shape is None:
        return (classes,)
    return (classes, ("images", " × ".join(map(str, subject.image_shape)) + " (channels, height, width)"))


def leftovers_section(checkup: Checkup, *, shown: Iterable[Record]) -> Section | None:
    """Records that no section shows, as they stand in ``check.json``: nothing measured goes unmentioned."""
    seen = {id(record) for record in shown}
    rest = [record for record in checkup.records if id(record) not in seen]
    if not rest:
        return None
    parts = tuple(Source(kind_title(record.kind), _shorten(record.model_dump_json(indent=2))) for record in rest)
    summary = f"{plural(len(rest), 'record')} without a section of their own, as in check.json."
    return Section("further-records", "Further records", summary, parts, records=tuple(rest))


def _shorten(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    left_out = count(len(text) - MOST_CHARACTERS)
    return f"{text[:MOST_CHARACTERS]}\n… {left_out} characters more in check.json"
