"""``assay data``: duplicates, leaks, odd pictures and labels of a data set, without any model."""

from __future__ import annotations

import csv
import io
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.check import LEVELS, Extra, FailOn, find_exit_code
from assay.cli.options import OF_THE_MODEL, BaselineFile, Inputs, argument, option, takes_inputs

if TYPE_CHECKING:
    from assay.data.dataset import ImageDataset
    from assay.records.checkup import Checkup
    from assay.records.quality import Duplicates
    from assay.runtime.processes import Processes

_OMITTED = (*OF_THE_MODEL, "data", "seed", "device")


@takes_inputs(omit=_OMITTED)
def data(
    source: Annotated[
        str, argument("Pictures: whatever `assay check --data` takes (digits, a folder, …).", metavar="DATA")
    ],
    inputs: Inputs,
    against: Annotated[
        str | None,
        option("Data", "The training images, spelled likewise: leaks from their training split are found.",
               metavar="TRAIN"),
    ] = None,
    out: Annotated[Path, option("Output", "Folder for data.html and data.json.", metavar="DIR")] = Path("assay-data"),
    fail_on: Annotated[
        FailOn,
        option("Output", "Exit with 1 when a verdict is at least this bad: warn, error or never.", metavar="LEVEL"),
    ] = FailOn.ERROR,
    formats: Annotated[
        list[Extra] | None,
        option("Output", "Write this too, beside the page: junit or sarif; may be repeated.", "--format",
               metavar="FORMAT"),
    ] = None,
    write_manifest: Annotated[
        Path | None,
        option("Output", "Write a table of the pictures that stay: without leaks, one of each group of duplicates. "
               "Nothing is deleted.", metavar="FILE"),
    ] = None,
    baseline: BaselineFile = None,
) -> None:  # fmt: skip
    """Look at a data set without a model: duplicates, leaks from training, odd pictures, labels, classes.

    Exit codes: 0 nothing found, 1 findings at or above --fail-on, 2 usage or input error, 70 a fault of assay.
    """
    from dataclasses import replace

    from rich.console import Console

    from assay.cli.inputs import open_data, open_training_images
    from assay.files import exclusive, make_folder, write_atomically
    from assay.records.quality import Duplicates
    from assay.records.reading import read_baseline
    from assay.report.terminal.check import print_summary
    from assay.runtime.processes import joined_processes
    from assay.verdict.baseline import apply_baseline

    inputs = replace(inputs, data=source)
    accepted = None if baseline is None else read_baseline(baseline)  # refused before any work
    with joined_processes() as processes:
        errors = Console(stderr=True, quiet=not processes.leads)
        dataset = open_data(inputs, errors, processes=processes)
        train = None if against is None else open_training_images(against, inputs, dataset, errors)
        checkup = _look(dataset, train, processes)
        if not processes.leads:
            return
        spelled = shlex.quote(source)
        named = {"model": "MODEL", "data": spelled, "both": f"MODEL --data {spelled}"}
        checkup = checkup.model_copy(update={"verdicts": tuple(v.name_inputs(**named) for v in checkup.verdicts)})
        if accepted is not None:
            checkup = apply_baseline(checkup, accepted, today=datetime.now(UTC).date())
        with exclusive(make_folder(out)):
            results = _write(checkup, out, formats=formats or [], fail_on=fail_on)
            if write_manifest is not None:
                text, left_out = _list_pictures(dataset, checkup, root=Path(source))
                write_atomically(write_manifest, text)
                typer.echo(f"note: {left_out:,} of {len(dataset):,} pictures are not in {write_manifest}", err=True)
                if unlisted := sum(each.left_out for each in checkup.each(Duplicates) if not each.against):
                    typer.echo(
                        f"note: {unlisted:,} more pairs within the set were not listed: run it again on what is left",
                        err=True,
                    )
        print_summary(checkup, Console())
        typer.echo(f"Results: {results}")
        typer.echo(f"Page: {out / 'data.html'}")
        raise typer.Exit(find_exit_code(checkup, fail_on=fail_on))


def _look(dataset: ImageDataset, train: ImageDataset | None, processes: Processes) -> Checkup:
    import torch

    from assay.data.dataset import identify_samples
    from assay.quality import find_duplicates, survey_pictures
    from assay.records.checkup import Checkup, Stage, Subject
    from assay.runtime import describe_environment
    from assay.verdict import judge

    started, clock = datetime.now(UTC), time.perf_counter()
    survey = survey_pictures(dataset)
    within = find_duplicates(dataset, processes=processes)
    leaks = [] if train is None else [find_duplicates(dataset, train, processes=processes)]
    skipped = "no training images were named (--against)" if train is None else None
    samples = identify_samples(dataset)
    records = (survey, *leaks, within)
    return Checkup(
        subject=Subject(
            model="no model",
            weights=None,
            data=dataset.name,
            split=dataset.split,
            n=len(dataset),
            available=len(dataset),
            classes=dataset.classes,
            image_shape=dataset.shape,
            samples=samples,
            notes=dataset.notes,
            source="data",
        ),
        budget="data only",
        seed=0,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - clock,
        environment=describe_environment(torch.device("cpu")),
        stages=(
            Stage(name="duplicates in the set", seconds=within.seconds),
            Stage(name="leaks from training", seconds=sum(each.seconds for each in leaks), skipped=skipped),
        ),
        records=records,
        verdicts=tuple(verdict for verdict in judge(records) if verdict.category == "data quality"),
    )


def _write(checkup: Checkup, folder: Path, *, formats: list[Extra], fail_on: FailOn) -> Path:
    from assay.cli.drawing import drawing
    from assay.files import write_atomically
    from assay.report.ci import render_junit, render_sarif

    path = folder / "data.json"
    write_atomically(path, checkup.model_dump_json(indent=1))
    if Extra.JUNIT in formats:
        write_atomically(folder / "data.junit.xml", render_junit(checkup, fail_on=LEVELS[fail_on]))
    if Extra.SARIF in formats:
        write_atomically(folder / "data.sarif", render_sarif(checkup))
    with drawing(path, again=f"assay report {path}"):
        from assay.report.check_page import render_page

        write_atomically(folder / "data.html", render_page(checkup))
    return path


def _list_pictures(dataset: ImageDataset, checkup: Checkup, *, root: Path) -> tuple[str, int]:
    """The pictures that stay as a table, and how many do not."""
    from assay.records.quality import Duplicates

    gone: set[int] = set()
    for record in checkup.each(Duplicates):
        gone |= _superfluous(record)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "id"])
    for place, label in enumerate(dataset.labels.tolist()):
        if place not in gone:
            name = dataset.sample_name(place)
            path = (root / name).resolve() if (root / name).is_file() else name
            writer.writerow([path, dataset.classes[label], int(dataset.ids[place])])
    return buffer.getvalue(), len(gone)


def _superfluous(record: Duplicates) -> set[int]:
    """Places of all leaks; within a set of all but the first of each group of duplicates, by their place."""
    if record.against:
        return set(record.related)
    first = {place: place for place in record.related}

    def group_of(place: int) -> int:
        while first[place] != place:
            place = first[place]
        return place

    for pair in record.pairs:
        if pair.is_duplicate:
            low, high = sorted((group_of(pair.first), group_of(pair.second)))
            first[high] = low
    return {place for place in first if group_of(place) != place}
