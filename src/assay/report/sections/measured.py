"""How all this was measured, and whatever no other section shows."""

from __future__ import annotations

from collections.abc import Iterable

from assay.records.base import Record
from assay.records.checkup import Checkup, Subject
from assay.report.parts import NUMBER, Column, Facts, Section, Source, Table
from assay.report.wording import clip, count, kind_title, listed, plural, seconds

MOST_CHARACTERS = 60_000


def measured_section(checkup: Checkup) -> Section:
    """Data, seed, budget, machine, and every stage with its time or the reason why it did not run."""
    subject, machine = checkup.subject, checkup.environment
    facts = (
        ("model", subject.model + (f", weights {subject.weights}" if subject.weights else "")),
        ("data", f"{subject.data}, {subject.split}: {count(subject.n)} of {count(subject.available)} samples"),
        *_images(subject),
        ("budget", checkup.budget),
        ("seed", str(checkup.seed)),
        ("started", checkup.started),
        ("took", seconds(checkup.seconds)),
        ("machine", f"{machine.processor}, {machine.platform}, {plural(machine.cores, 'core')}, "
         f"{plural(machine.threads, 'thread')}, {machine.memory_gib:.3g} GiB, device {machine.device}"),
        ("software", f"assay {machine.assay}, Python {machine.python}, torch {machine.torch}, numpy {machine.numpy}"),
    )  # fmt: skip
    stages = Table(
        "Stages",
        (Column("stage"), Column("time", NUMBER), Column("note")),
        tuple(
            (stage.name, "–" if stage.skipped is not None else seconds(stage.seconds),
             f"did not run: {stage.skipped}" if stage.skipped is not None else "")
            for stage in checkup.stages
        ),
    )  # fmt: skip
    skipped = [stage.name for stage in checkup.stages if stage.skipped is not None]
    summary = (
        f"{listed(skipped).capitalize()} did not run." if skipped else "Every stage of this budget ran."
    ) + " Intervals are 95 % Wilson intervals. The same seed on the same machine gives the same numbers."
    return Section("measured", "How this was measured", summary, (Facts(facts), stages))


def _images(subject: Subject) -> tuple[tuple[str, str], ...]:
    if subject.image_shape is None:
        return ()
    return (
        ("classes", f"{count(len(subject.classes))}: {clip(', '.join(subject.classes), 300)}"),
        ("images", " × ".join(map(str, subject.image_shape)) + " (channels, height, width)"),
    )


def leftovers_section(checkup: Checkup, *, shown: Iterable[Record]) -> Section | None:
    """Records that no section shows, as they stand in ``check.json``: nothing measured goes unmentioned."""
    seen = {id(record) for record in shown}
    rest = [record for record in checkup.records if id(record) not in seen]
    if not rest:
        return None
    parts = tuple(Source(kind_title(record.kind), _shorten(record.model_dump_json(indent=2))) for record in rest)
    summary = f"{plural(len(rest), 'record')} that no chapter above draws, as in check.json."
    return Section("further-records", "Further records", summary, parts, records=tuple(rest))


def _shorten(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    left_out = count(len(text) - MOST_CHARACTERS)
    return f"{text[:MOST_CHARACTERS]}\n… {left_out} characters more in check.json"
