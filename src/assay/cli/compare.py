"""``assay compare``: is B better than A, beyond noise?"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import BudgetName, Inputs, argument, option, takes_inputs
from assay.errors import COULD_NOT_RUN, InputError, ModelError, OptionError
from assay.wording import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from assay.cli.inputs import OpenedInputs
    from assay.records.checkup import Checkup
    from assay.records.comparison import Comparison

# What makes the exit code 1
FailOn = StrEnum("FailOn", "REGRESSION VERDICT DIFFERENT NEVER")
CHECKS, MODELS, PAGE = "compare.json", "models.json", "compare.html"


@takes_inputs(
    omit=("model", "weights", "limit"),
    helps={"data": "The images that models are given. A run folder brings its own."},
)
def compare(
    inputs: Inputs,
    models: Annotated[
        list[str],
        argument(
            "Models; or checks, each a check.json, a report folder, or a file of predictions, as for "
            "check --predictions. The first is the reference.",
            metavar="A B [C…]",
        ),
    ],
    margin: Annotated[
        float | None,
        option(
            "Comparison",
            "Of models: the change of accuracy that makes no difference, in percentage points. (default: 1)",
            metavar="POINTS",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        option("Data", "Attack at most N samples. (default: 200; in a check, those of the budget)", metavar="N", min=1),
    ] = None,
    out: Annotated[Path, option("Output", "Folder for compare.html and its records.", metavar="DIR")] = Path(
        "assay-compare"
    ),
    fail_on: Annotated[
        FailOn,
        option(
            "Output",
            "regression: exit with 1 when a measure got worse beyond noise, or is no longer measured; verdict: "
            "also when a verdict got worse or vanished; different: when a model is not shown to be the same as the "
            "first; or never.",
            metavar="LEVEL",
        ),
    ] = FailOn.NEVER,
    budget: Annotated[
        BudgetName | None,
        option(
            "Run",
            "Check each model as well, and compare the checks: quick, standard or full. (default: only a model beside "
            "a check, with standard)",
            metavar="LEVEL",
        ),
    ] = None,
) -> None:
    """Compare models with the first one on the same images, or checks of models.

    Models: are they the same for all practical purposes (a test of equivalence), which images flipped, how far outputs
    and layers drifted, latency, and whether adversarial images of one break the other.

    Checks: accuracies are compared by McNemar's exact test and curves by exchanging samples; Holm's correction
    covers all tests together. Images that differ are not paired; a note names them.

    Exit codes: 0 nothing of --fail-on, 1 something of it, 2 usage or input error, 4 something failed while models were
    compared.
    """
    from rich.console import Console

    if len(models) < 2:
        raise InputError("compare", expected="two checks or models, or more", got=f"{len(models)}: {models[0]}")
    errors = Console(stderr=True)
    check = next((spec for spec in models if _find_check(spec)), None)
    if check is None:
        findings, complete = _compare_models(
            inputs, models, 1.0 if margin is None else margin, limit, out, budget, errors
        )
    else:
        for name, given in (("--margin", margin is not None), ("--fail-on different", fail_on is FailOn.DIFFERENT)):
            if given:
                raise OptionError(name, expected="models alone", got=f"a check, {check}")
        findings = _compare_checks(inputs, models, limit, out, budget or BudgetName.STANDARD, errors)
        complete = True  # what a check could not measure is told by it
    failing = {fail_on, FailOn.REGRESSION} if fail_on is FailOn.VERDICT else {fail_on}
    lines = [f"{kind.value}: {text}" for kind, text in findings if kind in failing]
    for line in lines:
        errors.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    if lines:
        raise typer.Exit(1)
    if not complete:
        raise typer.Exit(COULD_NOT_RUN)


Findings = list[tuple[FailOn, str]]


def _compare_models(
    inputs: Inputs,
    specs: Sequence[str],
    margin: float,
    limit: int | None,
    out: Path,
    budget: BudgetName | None,
    errors: Console,
) -> tuple[Findings, bool]:
    """The models on the same images, and with a ``budget`` their checks beside it; what each level would fail on.

    And whether everything could be measured that can be of such models.
    """
    from rich.console import Console

    from assay.check.model_pairs import ATTACKED, check_options, compare_prepared
    from assay.check.pair_samples import PreparedModel
    from assay.cli.inputs import fill_in, print_notes, recorded_data
    from assay.cli.progress import StageProgress
    from assay.comparison import compare as compare_checkups
    from assay.files import make_folder, write_atomically
    from assay.report.comparison_page import render_comparison
    from assay.report.models_page import render_models
    from assay.report.models_wording import differences, regressions
    from assay.report.terminal.comparison import print_comparison
    from assay.report.terminal.models import print_models

    try:
        check_options(margin=margin / 100)
    except OptionError:
        raise OptionError("--margin", expected="percentage points, above 0 and below 100", got=f"{margin:g}") from None
    folder = make_folder(out)
    names = distinct([_name(spec) for spec in specs], length=60)
    own = [recorded_data(Path(spec)) for spec in specs]
    first = next((each for each in own if each is not None), None)
    opened = []
    for spec, recorded in zip(specs, own, strict=True):
        given = inputs
        if inputs.data is None and recorded is None and first is not None:
            given = fill_in(inputs, first)
            print_notes([f"{spec} is given the data that {specs[own.index(first)]} was made from"], errors)
        opened.append(_open(spec, given, errors))
    prepared = [
        PreparedModel(each.model, name, each.dataset, each.notes) for name, each in zip(names, opened, strict=True)
    ]
    with StageProgress(errors) as progress:
        compared = compare_prepared(
            prepared,
            margin=margin / 100,
            attacked=ATTACKED if limit is None else limit,
            seed=inputs.seed,
            on_stage=progress.show,
        )
    findings = [(FailOn.REGRESSION, text) for text in regressions(compared)]
    findings += [(FailOn.DIFFERENT, text) for text in differences(compared)]
    console = Console()
    if budget is None:
        (folder / CHECKS).unlink(missing_ok=True)  # of another comparison, not of these models
        page = partial(render_models, compared)
    else:
        checkups = []
        for place, each in enumerate(opened, start=1):
            checkups.append(_check(each, budget, limit, inputs.seed, errors))
            _write_check(folder, place, checkups[-1])
        checks = compare_checkups(checkups, names=[_name(spec) for spec in specs], seed=inputs.seed)
        write_atomically(folder / CHECKS, checks.model_dump_json(indent=1))
        page = partial(render_comparison, checks, models=compared)
        print_comparison(checks, console)
        console.print()
        findings += _findings(checks)
    write_atomically(folder / MODELS, compared.model_dump_json(indent=1))
    print_models(compared, console)
    _draw(page, folder, results=MODELS)
    return findings, compared.complete


def _compare_checks(
    inputs: Inputs, specs: Sequence[str], limit: int | None, out: Path, budget: BudgetName, errors: Console
) -> Findings:
    """The checks, and those of the models and of the files of predictions among ``specs``, which are made first."""
    from rich.console import Console

    from assay.cli.predictions import FileChecks
    from assay.comparison import compare as compare_checkups
    from assay.files import make_folder, write_atomically
    from assay.records.reading import read_checkup
    from assay.report.comparison_page import render_comparison
    from assay.report.terminal.comparison import print_comparison

    folder, files = make_folder(out), FileChecks(inputs, errors)
    checkups = []
    for place, spec in enumerate(specs, start=1):
        path = _find_check(spec)
        if path is not None and path.suffix == ".json":
            checkups.append(read_checkup(path))
            continue
        if path is not None:
            checkups.append(files.check(path))
        else:
            opened = _open(spec, inputs, errors)
            checkups.append(_check(opened, budget, limit, inputs.seed, errors))
        _write_check(folder, place, checkups[-1])
    models = [checkup.subject.model for checkup in checkups]
    names = models if len({*models}) == len(models) else [_name(spec) for spec in specs]
    comparison = compare_checkups(checkups, names=names, seed=inputs.seed)
    (folder / MODELS).unlink(missing_ok=True)  # of another comparison, not of these checks
    write_atomically(folder / CHECKS, comparison.model_dump_json(indent=1))
    print_comparison(comparison, Console())
    _draw(partial(render_comparison, comparison), folder, results=CHECKS)
    return _findings(comparison)


def _findings(comparison: Comparison) -> Findings:
    """What got worse in the checks: measures, and verdicts."""
    worse = [(FailOn.REGRESSION, text) for versus in comparison.versus for text in versus.regressions]
    return worse + [(FailOn.VERDICT, text) for versus in comparison.versus for text in versus.worse_verdicts]


def _draw(page: Callable[[], str], folder: Path, *, results: str) -> None:
    from assay.cli.drawing import drawing
    from assay.files import write_atomically

    with drawing(folder / results):
        write_atomically(folder / PAGE, page())
    typer.echo(f"Page: {folder / PAGE}")


def _open(spec: str, inputs: Inputs, console: Console) -> OpenedInputs:
    """The model and its data; an error of a model names it, since there are several."""
    from assay.cli.inputs import open_inputs

    try:
        return open_inputs(replace(inputs, model=spec), console)
    except ModelError as error:
        if spec in error.where:
            raise
        raise ModelError(f"{spec}: {error.where}", expected=error.expected, got=error.got) from error


def _check(opened: OpenedInputs, budget: BudgetName, limit: int | None, seed: int, console: Console) -> Checkup:
    """Check a model, with the progress on ``console``."""
    from assay.check import BUDGETS, run_check
    from assay.cli.progress import StageProgress

    with StageProgress(console) as progress:
        return run_check(
            opened.model,
            opened.dataset,
            name=opened.name,
            budget=BUDGETS[budget.value],
            limit=limit,
            seed=seed,
            history=opened.history,
            notes=opened.notes,
            on_stage=progress.show,
            on_plan=progress.plan,
        )


def _write_check(folder: Path, place: int, checkup: Checkup) -> None:
    from assay.files import make_folder, write_atomically

    write_atomically(make_folder(folder / f"check-{place}") / "check.json", checkup.model_dump_json(indent=1))


def _find_check(spec: str) -> Path | None:
    """The check, or file of predictions, that ``spec`` names; None where it names a model."""
    from assay.cli.predictions import FILES

    path = Path(spec)
    if path.suffix == ".json" or path.suffix.lower() in FILES:
        return path
    return path / "check.json" if (path / "check.json").is_file() else None


def _name(spec: str) -> str:
    """Its name in the comparison: that of the folder or file, for ``check.json`` that of its folder."""
    path = Path(spec)
    if path.name == "check.json":
        return path.resolve().parent.name
    return path.name if path.exists() else spec


def history(
    folder: Annotated[
        Path, argument("A folder of checks: every check.json below it, every *.json in it.", metavar="DIR")
    ],
    out: Annotated[
        Path | None, option("Output", "The page to write. (default: history.html in DIR)", metavar="FILE")
    ] = None,
) -> None:
    """Show a folder of checks as a trend, each tested against the one before it on the same images.

    Checks are ordered by the time recorded in them. Files that cannot be read are named and skipped.
    """
    from rich.console import Console

    from assay.comparison import trace_history
    from assay.files import write_atomically
    from assay.records.reading import read_folder
    from assay.report.history_page import render_history
    from assay.report.terminal.comparison import print_history

    checkups, broken = read_folder(folder)
    trend = trace_history(checkups, folder=folder.resolve().name, skipped=broken)
    target = out or folder / "history.html"
    write_atomically(target, render_history(trend))
    print_history(trend, Console())
    typer.echo(f"Page: {target}")
