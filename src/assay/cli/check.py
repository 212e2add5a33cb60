"""``assay check``: put a model to the test, write the report, and, when asked, apply the fixes and measure again."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from assay.cli.memory import Memory, parse_size
from assay.cli.options import BaselineFile, Budget, BudgetName, Inputs, Resume, flag, option, takes_inputs
from assay.cli.within import Within, parse_duration, seconds_around_stages, seconds_since_start
from assay.errors import COULD_NOT_RUN, FINDINGS, DataError, InputError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from assay.cli.inputs import OpenedInputs
    from assay.data.dataset import ImageDataset
    from assay.records.budget import Budget as SampleBudget
    from assay.records.checkup import Checkup
    from assay.records.finding import Baseline, FailAt
    from assay.records.scores import Use

FIXED = "fixed"  # folder of the fixed weights, inside that of the report

# The mildest verdict that makes the exit code 1
FailOn = StrEnum("FailOn", "WARN ERROR NEVER")

LEVELS: dict[FailOn, FailAt] = {FailOn.WARN: "warn", FailOn.ERROR: "error", FailOn.NEVER: "never"}

# What the model is to be fit for
UseName = StrEnum("UseName", "BENIGN SHIFTED ADVERSARIAL")

# Machine-readable files to write beside the report; ``json`` is check.json, which is always written
Extra = StrEnum(
    "Extra", {"JSON": "json", "JUNIT": "junit", "SARIF": "sarif", "MARKDOWN": "markdown", "MODEL_CARD": "model-card"}
)


@takes_inputs(omit=("limit",))
def check(
    context: typer.Context,
    inputs: Inputs,
    limit: Annotated[
        int | None,
        option(
            "Data",
            "Attack and measure only the first N samples; the clean accuracy uses all that the budget allows.",
            metavar="N",
            min=1,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        option(
            "Model",
            "Check predictions in place of a model: .csv, .tsv, .jsonl, .parquet or .npz with logits, probabilities or "
            "predicted classes, and labels or --data.",
            metavar="FILE",
        ),
    ] = None,
    against: Annotated[
        str | None,
        option(
            "Data",
            "The training images, spelled as --data: duplicates of the tested images in their training split are "
            "found, and each accuracy is told again without them.",
            metavar="TRAIN",
        ),
    ] = None,
    apply_fixes: Annotated[
        bool,
        flag(
            "Fixes",
            "Apply the available fixes to copies of the model, measure again, keep the weights.",
            "--apply-fixes",
        ),
    ] = False,
    fix_data: Annotated[
        str | None,
        option("Fixes", "Images to fit the fixes on. (default: the training split of --data)", metavar="DATA"),
    ] = None,
    out: Annotated[Path, option("Output", "Folder for report.html and check.json.", metavar="DIR")] = Path(
        "assay-report"
    ),
    fail_on: Annotated[
        FailOn,
        option("Output", "Exit with 1 when a verdict is at least this bad: warn, error or never.", metavar="LEVEL"),
    ] = FailOn.ERROR,
    uses: Annotated[
        list[UseName] | None,
        option(
            "Output",
            "What the model is to be fit for: benign, shifted or adversarial images; may be repeated. Findings about "
            "another use are shown and do not change the exit code. (default: benign and shifted, and every finding "
            "counts)",
            "--for",
            metavar="USE",
        ),
    ] = None,
    formats: Annotated[
        list[Extra] | None,
        option(
            "Output",
            "Write this too, beside the report: junit, sarif, markdown or model-card; may be repeated.",
            "--format",
            metavar="FORMAT",
        ),
    ] = None,
    keep_predictions: Annotated[
        Path | None,
        option(
            "Output",
            "Write the logits of every sample too, with ids and labels: .csv, .parquet or .npz.",
            metavar="FILE",
        ),
    ] = None,
    baseline: BaselineFile = None,
    budget: Budget = BudgetName.STANDARD,
    budget_of: Annotated[
        Path | None,
        option("Run", "Take the images and steps of this check: its check.json, or its folder.", metavar="CHECK"),
    ] = None,
    within: Within = None,
    memory: Memory = None,
    resume: Resume = False,
) -> None:
    """Put a model to the test: accuracy, attacks, gradients, modes, spectra. Writes one page with all findings.

    Exit codes: 0 nothing found, 1 findings at or above --fail-on, 2 usage or input error, 3 interrupted (--resume),
    4 something could not be measured (whatever --fail-on says, and nothing else was found), 70 a fault of assay.
    """
    from rich.console import Console

    from assay.check import run_check
    from assay.cli.inputs import name_inputs, open_inputs, open_training_images, resolve_data
    from assay.cli.predictions import check_file
    from assay.cli.progress import StageProgress
    from assay.files import exclusive, make_folder
    from assay.records.reading import read_baseline
    from assay.runtime.processes import joined_processes

    accepted = None if baseline is None else read_baseline(baseline)  # refused before any work
    chosen, most_memory = _choose_effort(context, budget, budget_of, within), parse_size(memory)
    with joined_processes() as processes, ExitStack() as held:
        errors = Console(stderr=True, quiet=not processes.leads)
        if predictions is not None:
            if against is not None:
                raise OptionError("--against", expected="a model", got="predictions alone (see `assay data`)")
            if processes.leads:
                checkup = check_file(predictions, inputs, context, errors)
                _finish(checkup, make_folder(out), accepted, uses=uses, formats=formats or (), fail_on=fail_on)
            return
        inputs = resolve_data(inputs)
        opened = open_inputs(inputs, errors, processes=processes)
        train = None if against is None else open_training_images(against, inputs, opened.dataset, errors)
        if processes.leads:
            held.enter_context(exclusive(make_folder(out)))
        processes.gather(None)  # the other processes write only once the leader holds the lock
        with StageProgress(errors) as progress:
            checkup = run_check(
                opened.model,
                opened.dataset if apply_fixes else opened.titled,  # copies with fixes keep the names of the data
                name=opened.name,
                weights=None if inputs.weights is None else inputs.weights.name,
                budget=chosen.budget,
                within=chosen.within,
                reserved=0.0 if chosen.within is None else seconds_around_stages(),
                limit=limit,
                seed=inputs.seed,
                history=opened.history,
                notes=opened.notes,
                folder=out,
                resume=resume,
                on_stage=progress.show,
                on_plan=progress.plan,
                processes=processes,
                keep_predictions=keep_predictions,
                memory=most_memory,
                against=train,
            )
        if not processes.leads:
            return
        names = name_inputs(inputs)
        named = tuple(verdict.name_inputs(**names) for verdict in checkup.verdicts)
        checkup = checkup.model_copy(update={"verdicts": named})
        if apply_fixes:
            _write_results(checkup, out, formats=(), fail_on=fail_on)  # they are kept if a fix fails
            _draw(checkup, out)
            source = fix_data or inputs.data or "digits"
            taken = chosen.budget if checkup.plan is None else checkup.plan.budget
            checkup = _fix_and_measure_again(inputs, opened, checkup, source, taken, limit, out, errors)
        _finish(checkup, out, accepted, uses=uses, formats=formats or (), fail_on=fail_on)


@dataclass(frozen=True)
class _Effort:
    """How much a check may spend: a budget, or the seconds that it is to be planned into."""

    budget: SampleBudget
    within: float | None = None


def _choose_effort(context: typer.Context, budget: BudgetName, budget_of: Path | None, within: str | None) -> _Effort:
    """Raises :class:`OptionError` for two of them, and what reading another check raises."""
    from assay.check import BUDGETS
    from assay.records.reading import read_checkup

    given = [f"--{name.replace('_', '-')}" for name in ("within", "budget_of", "budget") if _is_given(context, name)]
    if len(given) > 1:
        raise OptionError(given[0], expected=f"either it or {given[1]}", got="both")
    if budget_of is None:
        return _Effort(BUDGETS[budget.value], None if within is None else parse_duration(within))
    path = budget_of / "check.json" if budget_of.is_dir() else budget_of
    plan = read_checkup(path).plan
    if plan is None:
        raise InputError(f"{path}: plan", expected="the images and steps of a check", got="nothing")
    return _Effort(plan.budget)


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether the option was written on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _finish(
    checkup: Checkup,
    folder: Path,
    accepted: Baseline | None,
    *,
    uses: Sequence[UseName] | None,
    formats: Sequence[Extra],
    fail_on: FailOn,
) -> NoReturn:
    """Write the report, print what was found, and end with the exit code that it has."""
    from rich.console import Console

    from assay.report.terminal.check import print_summary
    from assay.report.terminal.layout import print_line
    from assay.verdict.baseline import apply_baseline
    from assay.wording import seconds

    if uses:
        checkup = checkup.model_copy(update={"uses": tuple(dict.fromkeys(use.value for use in uses))})
    if accepted is not None:
        checkup = apply_baseline(checkup, accepted, today=datetime.now(UTC).date())
    results = _write_results(checkup, folder, formats=formats, fail_on=fail_on)
    print_summary(checkup, Console())
    for note in filter(None, (stage.note for stage in checkup.stages)):
        typer.echo(f"note: {note}")
    typer.echo(f"Results: {results}")  # drawing may be killed for the memory that it needs beside the model
    typer.echo(f"Report: {_draw(checkup, folder)}")
    print_line(Console(), f"Took {seconds(seconds_since_start())} with opening and drawing.", "dim")
    raise typer.Exit(find_exit_code(checkup, fail_on=fail_on, uses=checkup.uses if uses else None))


def find_exit_code(checkup: Checkup, *, fail_on: FailOn, uses: Sequence[Use] | None = None) -> int:
    """1 for findings, 4 where something could not be measured, else 0; with ``uses`` those about others are none."""
    from assay.records.scores import ASKS_FOR, USES

    uses = uses or USES
    about_others = {ASKS_FOR[use] for use in USES if use not in uses} - {"accuracy"}
    if any(verdict.fails(LEVELS[fail_on]) for verdict in checkup.verdicts if verdict.category not in about_others):
        return FINDINGS
    return 0 if checkup.complete else COULD_NOT_RUN


def _write_results(checkup: Checkup, folder: Path, *, formats: Sequence[Extra], fail_on: FailOn) -> Path:
    """Everything but the page, which can be drawn from ``check.json`` at any time; returns its path."""
    from assay.files import write_atomically

    path = folder / "check.json"
    write_atomically(path, checkup.model_dump_json(indent=1))
    from assay.report.ci import render_junit, render_sarif

    if Extra.JUNIT in formats:
        write_atomically(folder / "check.junit.xml", render_junit(checkup, fail_on=LEVELS[fail_on]))
    if Extra.SARIF in formats:
        write_atomically(folder / "check.sarif", render_sarif(checkup))
    if Extra.MARKDOWN in formats:
        from assay.report.markdown import render_markdown

        write_atomically(folder / "check.md", render_markdown(checkup))
    if Extra.MODEL_CARD in formats:
        from assay.report.model_card import render_model_card

        write_atomically(folder / "model-card.md", render_model_card(checkup))
    return path


def _draw(checkup: Checkup, folder: Path) -> Path:
    from assay.cli.drawing import drawing
    from assay.files import write_atomically

    page = folder / "report.html"
    with drawing(folder / "check.json", again=f"assay report {folder / 'check.json'}"):
        from assay.report.check_page import render_page

        write_atomically(page, render_page(checkup))
    return page


def _fix_and_measure_again(
    inputs: Inputs,
    opened: OpenedInputs,
    checkup: Checkup,
    source: str,
    budget: SampleBudget,
    limit: int | None,
    folder: Path,
    console: Console,
) -> Checkup:
    """The checkup with its fixes in it; the copy with all fixes of weights is written to ``folder/fixed``."""
    from assay.cli.inputs import data_notes, print_notes, record_data
    from assay.cli.progress import StageProgress
    from assay.compression import save_compressed
    from assay.files import make_folder
    from assay.fixes import apply_fixes
    from assay.records.comparison import AppliedFix
    from assay.training.recipes import load_recipe

    train, note = _training_images(source, inputs, opened.dataset)
    if train is not None:
        print_notes([f"training images: {each}" for each in data_notes(train)], console)
    with StageProgress(console) as progress:
        fixed = apply_fixes(
            opened.model,
            opened.dataset,
            checkup,
            train=train,
            train_note=note,
            budget=budget,
            limit=limit,
            on_fix=lambda name, place, total: progress.show(f"fix: {name}", place, total),
        )
    if fixed.model is None:
        return fixed.checkup
    own = load_recipe("digits")  # what a check trains for itself when it is given no model
    save_compressed(
        make_folder(folder / FIXED),
        fixed.model,
        fixed.factorization,
        spec=inputs.model or own.model,
        classes=opened.dataset.classes,
        image_shape=opened.dataset.shape,
        options=None if inputs.model else own.model_options,
        preparation=opened.dataset.preparation,
    )
    record_data(folder / FIXED, inputs)
    records = tuple(  # those that change weights name the file that holds them
        record.model_copy(update={"weights": f"{FIXED}/model.safetensors"})
        if isinstance(record, AppliedFix) and record.rule in fixed.combined
        else record
        for record in fixed.checkup.records
    )
    return fixed.checkup.model_copy(update={"records": records})


def _training_images(source: str, inputs: Inputs, dataset: ImageDataset) -> tuple[ImageDataset | None, str]:
    """The training split of ``source``; None, and why, where there is none or it does not fit the tested images."""
    from assay.cli.inputs import table_options
    from assay.data.sources import load_dataset

    try:
        train = load_dataset(
            source,
            split="train",
            data_dir=inputs.data_dir,
            image_size=inputs.image_size,
            max_bad=inputs.max_bad,
            **(table_options(inputs) if source == inputs.data else {}),
            prepare=dataset.preparation,
        )
    except DataError as error:
        return None, f"no training images ({error}); name them with --fix-data"
    if train.classes != dataset.classes or train.shape != dataset.shape:
        return None, f"the training images of {source} have other classes or another shape; see --fix-data"
    return train, ""
