"""``assay train``: train a classifier or a sequence model by a recipe."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import inputs as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from assay.data.dataset import ImageDataset
    from assay.training.classifier import TrainingJob
    from assay.training.metrics import OnStep, StepMetrics
    from assay.training.recipes import Recipe


# what a data set is trained by when nothing is said
_RECIPES = {"digits": "digits", "cifar10": "cifar10-fast", "adding": "adding-lstm", "copy": "copy-lstm"}


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="The images to train on, or one of the tasks of sequences, adding and copy; without it, what the "
            "recipe was made for.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe by name, or a .toml file. [default: what suits the data]", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder. [default: runs/RECIPE-SEED]", show_default=False)
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the recipe, such as optimizer.lr=0.1; may be repeated."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another architecture of ours than the recipe's.", show_default=False)
    ] = None,
    validation_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Hold out this share of the training set and watch it every epoch.")
    ] = 0.0,
    data_dir: arg.DataDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Train on the first N samples only.")] = None,
    image_size: arg.ImageSize = None,
    max_bad: arg.MaxBad = 0,
    seed: Annotated[int | None, typer.Option(help="Every random choice follows from this number. [default: 0]")] = None,
    device: arg.Device = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of convolutions and products: float32, bfloat16, or auto. [default: the recipe's]", show_default=False
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in --out already.")] = False,
    test: Annotated[bool, typer.Option(help="Read the test set once, at the end.")] = True,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log for TensorBoard too, into --out.")] = False,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="How old a checkpoint may grow.")] = 30.0,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as TOML and end.")] = False,
) -> None:
    """Train a classifier or a sequence model: a recipe decides, --set changes it, the run folder keeps all of it.

    Killed or interrupted at any moment, the same command with --resume ends in the same weights.

    Exit codes: 0 done, 2 usage or input error, 3 interrupted (--resume).
    """
    before = _config_of(out) if resume else {}
    changes = [*(sets or []), *([] if precision is None else [f"precision={precision}"])]
    chosen = _choose_recipe(recipe, data=data, model=model, sets=changes, before=before)
    if show:
        typer.echo(chosen.to_toml(), nl=False)
        return
    number = before.get("seed", 0) if seed is None else seed
    name = data or before.get("data", {}).get("name") or chosen.data
    folder = out or Path("runs") / f"{chosen.name}-{number}"
    if (folder / "config.json").exists() and not (resume or overwrite):
        expected = "a new folder, or --resume to go on, or --overwrite"
        raise OptionError("--out", expected=expected, got=f"{folder}, which holds a run")
    if name in {"adding", "copy"}:
        from assay.training.sequence_model import sequence_job

        _refuse_image_options(name, limit=limit, validation_fraction=validation_fraction, image_size=image_size)
        prepare = partial(sequence_job, chosen, name, seed=number)
    else:
        from assay.training.classifier import classifier_job

        load = partial(_load, name, limit=limit, data_dir=data_dir, image_size=image_size, max_bad=max_bad)
        prepare = partial(classifier_job, chosen, load, validation_fraction=validation_fraction, seed=number)
    _run(
        prepare,
        out=folder,
        device=device,
        resume=resume,
        test=test,
        on_steps=[_tensorboard_writer(folder)] if tensorboard else [],
        checkpoint_seconds=checkpoint_seconds,
    )


def _run(
    prepare: Callable[[], TrainingJob],
    *,
    out: Path,
    device: str,
    resume: bool,
    test: bool,
    on_steps: list[OnStep],
    checkpoint_seconds: float,
) -> None:
    """Train in this process, or with those that torchrun started; the leading one writes and talks."""
    from rich.console import Console

    from assay.cli.progress import TrainingProgress
    from assay.files import exclusive, make_folder, write_atomically
    from assay.report.terminal.training import print_training_run
    from assay.runtime import keep_freed_memory
    from assay.runtime.processes import joined_processes

    keep_freed_memory()
    with joined_processes() as processes, ExitStack() as held:
        console = Console(stderr=True, quiet=not processes.leads)
        job = prepare()
        for note in job.notes:
            console.print(note, style="yellow", markup=False)
        if processes.leads:
            held.enter_context(exclusive(make_folder(out)))
        with TrainingProgress(console) as progress:
            trained = job.train(
                out=out,
                device=device,
                on_step=partial(_tell, [progress.step, *on_steps]),
                resume=resume,
                checkpoint_seconds=checkpoint_seconds,
                processes=processes,
            )
        if test and job.test is None:
            console.print("no test split: hold some images out with --validation-fraction", style="yellow")
        tested = list(job.test(trained, processes)) if test and job.test is not None else []
        if not processes.leads:
            return
        write_atomically(out / "training.json", trained.run.model_dump_json(indent=1) + "\n")
        for reading in tested:
            write_atomically(out / reading.file, reading.record.model_dump_json(indent=1) + "\n")
        print_training_run(trained.run, Console())
        for reading in tested:
            typer.echo(reading.sentence)
        typer.echo(f"Run: {out}")


def _config_of(out: Path | None) -> dict[str, Any]:
    """The ``config.json`` of the run to resume; empty when the run was killed before it could write one."""
    if out is None:
        raise OptionError("--resume", expected="--out, the folder of the run to go on with", got="none")
    path = out / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {"recipe": dict(config["recipe"]), "data": dict(config["data"]), "seed": int(config["seed"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(str(path), expected="the configuration of a run", got=error) from None


def _choose_recipe(
    name: str | None, *, data: str | None, model: str | None, sets: list[str], before: dict[str, Any]
) -> Recipe:
    from assay.training.recipes import Recipe, load_recipe

    if name is None and before and not sets:
        recipe = Recipe.parse_saved(dict(before["recipe"]), where="config.json: recipe")
    else:
        recipe = load_recipe(name or _RECIPES.get(data or "digits", "default"), overrides=sets)
    if model is not None and model != recipe.model:
        from assay.models.sequence import CELLS

        alike = {model, recipe.model} <= CELLS.keys()  # all sequence models take the same options
        recipe = recipe.model_copy(update={"model": model, "model_options": recipe.model_options if alike else {}})
    return recipe


def _refuse_image_options(name: str, **given: object) -> None:
    """Raise :class:`OptionError` for an option that only stored images have, with a task of generated sequences."""
    for option, value in given.items():
        if value:
            flag = f"--{option.replace('_', '-')}"
            raise OptionError(flag, expected=f"nothing: {name} is drawn anew at every step", got=value)


def _load(
    name: str, split: str, *, limit: int | None, data_dir: Path | None, image_size: int | None, max_bad: int
) -> ImageDataset:
    """One split of the data; ``limit`` is for the training split alone, the test is always whole."""
    from assay.data.sources import load_dataset

    most = limit if split == "train" else None
    return load_dataset(name, split=split, data_dir=data_dir, limit=most, max_bad=max_bad, image_size=image_size)


def _tell(listeners: list[OnStep], metrics: StepMetrics) -> None:
    for listener in listeners:
        listener(metrics)


def _tensorboard_writer(folder: Path) -> OnStep:
    from assay.training.metrics import TensorBoardLog

    return TensorBoardLog(folder)
