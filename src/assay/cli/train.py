"""``assay train``: train a classifier or a sequence model by a recipe."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.options import Inputs, Resume, argument, flag, option, takes_inputs
from assay.errors import InputError, OptionError, UnusedOptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from assay.data.dataset import ImageDataset
    from assay.models.sources.blueprint import NormalizationChoice
    from assay.records.preparation import Preparation
    from assay.runtime.processes import Processes
    from assay.training.classifier import TrainingJob
    from assay.training.metrics import OnStep, StepMetrics
    from assay.training.recipes import Recipe


# the default recipe of a data set
_RECIPES = {"digits": "digits", "cifar10": "cifar10-fast", "adding": "adding-lstm", "copy": "copy-lstm"}


@takes_inputs(
    omit=("model", "normalization", "match_classes", "classes", "score_over", "data", "split", "seed"),
    helps={
        "limit": "Train on N samples only, of all classes; the test set is always whole.",
        "weights": "Go on from these weights of the network that --model names: .safetensors, or a checkpoint that "
        "loads with weights_only.",
    },
)
def train(
    inputs: Inputs,
    data: Annotated[
        str | None,
        argument(
            "The images to train on, or a sequence task, adding or copy; without it, what the recipe was made for.",
            metavar="DATA",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        option("Training", "A recipe by name, or a .toml file. (default: what suits the data)", metavar="NAME"),
    ] = None,
    sets: Annotated[
        list[str] | None,
        option(
            "Training",
            "Change a field of the recipe, such as optimizer.lr=0.1; may be repeated.",
            "--set",
            metavar="FIELD=VALUE",
        ),
    ] = None,
    show: Annotated[bool, flag("Training", "Print the recipe as TOML and end.", "--show")] = False,
    model: Annotated[
        str | None,
        option(
            "Training",
            "Another architecture of ours than the recipe's; or a model to go on from, which keeps its weights, its "
            "preparation and, for the same classes, its last layer: a run folder, timm:NAME,pretrained=true, "
            "torchvision:NAME,weights=DEFAULT, transformers:FOLDER, path/to/file.py:factory.",
            metavar="NAME",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        option(
            "Training",
            "Of convolutions and matrix products: float32, bfloat16, or auto. (default: the recipe's)",
            metavar="DTYPE",
        ),
    ] = None,
    validation_fraction: Annotated[
        float,
        option(
            "Data",
            "Hold out this share of the training set and measure it every epoch.",
            metavar="FRACTION",
            min=0,
            max=0.9,
        ),
    ] = 0.0,
    out: Annotated[Path | None, option("Output", "The run folder. (default: runs/RECIPE-SEED)", metavar="DIR")] = None,
    test: Annotated[bool, flag("Output", "Measure the test set once, at the end.")] = True,
    overwrite: Annotated[bool, flag("Output", "Replace a run that is in --out already.", "--overwrite")] = False,
    tensorboard: Annotated[bool, flag("Output", "Log for TensorBoard too, into --out.", "--tensorboard")] = False,
    resume: Resume = False,
    checkpoint_seconds: Annotated[
        float, option("Run", "Longest time between two checkpoints.", metavar="SECONDS", min=0)
    ] = 30.0,
    seed: Annotated[int | None, option("Run", "Seed of every random choice. (default: 0)", metavar="N")] = None,
) -> None:
    """Train a classifier or a sequence model: a recipe decides, --set changes it, the run folder keeps all of it.

    A model that was trained before is fine-tuned: by the recipe finetune, unless another is named.

    Killed or interrupted at any moment, the same command with --resume ends in the same weights.

    Exit codes: 0 done, 2 usage or input error, 3 interrupted (--resume).
    """
    from assay.cli.inputs import align_classes, fill_in, recorded_data

    if resume and overwrite:
        raise OptionError("--overwrite", expected="either it or --resume", got="both")
    before = _config_of(out) if resume else {}
    changes = [*(sets or []), *([] if precision is None else [f"precision={precision}"])]
    _refuse_sets_without_effect(sets or [], data=data, model=model, precision=precision, test=test)
    chosen = _choose_recipe(recipe, data=data, model=model, sets=changes, before=before, inputs=inputs)
    if show:
        typer.echo(chosen.to_toml(), nl=False)
        return
    from assay.training.metrics import TensorBoardLog

    number = before.get("seed", 0) if seed is None else seed
    if resume and out is not None and data is None and (recorded := recorded_data(out)) is not None:
        inputs = fill_in(replace(inputs, weights=inputs.weights or recorded.weights), recorded)
    name = data or inputs.data or chosen.data
    folder = out or Path("runs") / f"{chosen.name}-{number}"
    if (folder / "config.json").exists() and not (resume or overwrite):
        expected = "a new folder, or --resume to go on, or --overwrite"
        raise OptionError("--out", expected=expected, got=f"{folder}, which holds a run")
    if name in {"adding", "copy"}:
        _refuse_image_options(
            name,
            limit=inputs.limit,
            validation_fraction=validation_fraction,
            image_size=inputs.image_size,
            prepare=inputs.prepare,
            weights=inputs.weights,
            image_column=inputs.image_column,
            label_column=inputs.label_column,
            split_column=inputs.split_column,
            root=inputs.root,
        )

        def prepare(console: Console, processes: Processes) -> TrainingJob:
            from assay.training.sequence_model import sequence_job

            return sequence_job(chosen, name, seed=number)
    else:
        inputs = replace(inputs, data=name)
        normalization = _stated_normalization(inputs)
        _require_trained(chosen, inputs)
        recorded_preparation = _recorded_preparation(before, inputs, out)

        def prepare(console: Console, processes: Processes) -> TrainingJob:
            from assay.training.classifier import classifier_job

            numbered: list[tuple[str, ...]] = []  # the classes in the order of the split that is read first, for all

            def load(split: str) -> ImageDataset:
                dataset = _load(
                    inputs,
                    split,
                    model=chosen.model,
                    prepare=recorded_preparation,
                    held_out=validation_fraction,
                    console=console,
                    processes=processes,
                )
                numbered.append(dataset.classes)
                return align_classes(dataset, numbered[0])

            return classifier_job(
                chosen,
                load,
                validation_fraction=validation_fraction,
                seed=number,
                weights=inputs.weights,
                normalization=normalization,
                trust_code=inputs.trust_code,
            )

    _run(
        prepare,
        out=folder,
        inputs=inputs,
        resume=resume,
        test=test,
        on_steps=[TensorBoardLog(folder)] if tensorboard else [],
        checkpoint_seconds=checkpoint_seconds,
    )


def _run(
    prepare: Callable[[Console, Processes], TrainingJob],
    *,
    out: Path,
    inputs: Inputs,
    resume: bool,
    test: bool,
    on_steps: list[OnStep],
    checkpoint_seconds: float,
) -> None:
    """Train in this process, or with those that torchrun started; the first one writes and prints."""
    from rich.console import Console

    from assay.cli.inputs import RECORD, print_notes, record_data
    from assay.cli.progress import TrainingProgress
    from assay.files import exclusive, make_folder, write_atomically
    from assay.report.terminal.model import print_training_run
    from assay.runtime import keep_freed_memory
    from assay.runtime.processes import joined_processes

    keep_freed_memory()
    with joined_processes() as processes, ExitStack() as held:
        console = Console(stderr=True, quiet=not processes.leads)
        job = prepare(console, processes)
        if processes.leads:
            held.enter_context(exclusive(make_folder(out)))
            if inputs.data is not None:
                record_data(out, inputs)
        with TrainingProgress(console) as progress:
            try:
                trained = job.train(
                    out=out,
                    device=inputs.device,
                    on_step=partial(_notify, [progress.step, *on_steps]),
                    resume=resume,
                    checkpoint_seconds=checkpoint_seconds,
                    processes=processes,
                )
            except InputError:
                if processes.leads and not (out / "config.json").exists():  # it never began
                    (out / RECORD).unlink(missing_ok=True)
                    with suppress(OSError):  # it holds something else
                        out.rmdir()
                raise
        if test and job.test is None:
            print_notes(["no test split: hold some images out with --validation-fraction"], console)
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
    name: str | None,
    *,
    data: str | None,
    model: str | None,
    sets: list[str],
    before: dict[str, Any],
    inputs: Inputs,
) -> Recipe:
    from assay.training.recipes import Recipe, load_recipe

    if name is None and before and not sets:
        recipe = Recipe.parse_saved(dict(before["recipe"]), where="config.json: recipe")
    else:
        trained = name is None and model is not None and _is_trained(model, inputs)
        name = name or ("finetune" if trained else _RECIPES.get(data or "digits", "default"))
        recipe = load_recipe(name, overrides=sets)
    if model is not None and model != recipe.model:
        from assay.models.sequence import CELLS

        if {model, recipe.model} <= CELLS.keys():  # all sequence models take the same options
            return recipe.model_copy(update={"model": model})
        if name is None:
            return recipe.model_copy(update={"model": model, "model_options": {}})
        return load_recipe(name, overrides=[f"model={model}", "model_options={}", *sets])
    return recipe


def _is_trained(model: str, inputs: Inputs) -> bool:
    """Whether a model comes with weights that were trained; of code of the user's nobody knows."""
    from assay.models.sources import find_blueprint
    from assay.models.sources.blueprint import ModelRequest
    from assay.training.classifier import is_ours

    if inputs.weights is not None:
        return True
    if is_ours(model) or model.rpartition(":")[0].endswith(".py"):
        return False
    blueprint = find_blueprint(model, ModelRequest(trust_code=inputs.trust_code))
    return blueprint.weights is not None or blueprint.has_weights is True


def _require_trained(recipe: Recipe, inputs: Inputs) -> None:
    """A recipe that begins with the last layer alone is for a network that was trained before."""
    from assay.training.classifier import is_ours

    if recipe.finetune.frozen_epochs and is_ours(recipe.model) and inputs.weights is None:
        expected = f"a model that was trained before, for the recipe {recipe.name} to go on from"
        raise OptionError("--model", expected=expected, got=f"{recipe.model} with random weights")


def _stated_normalization(inputs: Inputs) -> NormalizationChoice:
    """The mean and standard deviation of ``--prepare``, where it states them: they become part of the model."""
    from assay.models.sources import parse_preparation

    stated = parse_preparation(inputs.prepare, where="--prepare")
    if stated is not None and stated.channels != "rgb":
        raise OptionError("--prepare", expected="pictures in RGB, for training", got=stated.channels)
    return None if stated is None else stated.normalization


def _recorded_preparation(before: dict[str, Any], inputs: Inputs, out: Path | None) -> Preparation | None:
    """How the pictures of the run to resume were prepared, unless the command says how; so its source is not needed."""
    from assay.cli.inputs import recorded_data
    from assay.records.preparation import Preparation

    recorded = None if out is None or not before else recorded_data(out)
    if recorded is None or (recorded.image_size, recorded.prepare) != (inputs.image_size, inputs.prepare):
        return None
    stated = before["data"].get("preparation")
    return None if stated is None else Preparation.model_validate(stated)


def _refuse_sets_without_effect(
    sets: list[str], *, data: str | None, model: str | None, precision: str | None, test: bool
) -> None:
    """Raise :class:`UnusedOptionError` for a field set by ``--set`` that another option of the command overrules."""
    fields = [each.partition("=")[0].strip() for each in sets]
    overruled = {
        "data": data and f"the data are {data}",
        "model": model and f"--model is {model}",
        "precision": precision and f"--precision is {precision}",
        "test_views": not test and "nothing is tested with --no-test",
        "sequence.test_samples": not test and "nothing is tested with --no-test",
    }
    for field in fields:
        if reason := overruled.get(field):
            raise UnusedOptionError(f"--set {field}", reason=f"no effect, as {reason}")


def _refuse_image_options(name: str, **given: object) -> None:
    """Raise :class:`OptionError` for an option that only stored images have, with a task of generated sequences."""
    for option_name, value in given.items():
        if value:
            flag_name = f"--{option_name.replace('_', '-')}"
            raise OptionError(flag_name, expected=f"nothing: {name} is drawn anew at every step", got=value)


def _load(
    inputs: Inputs,
    split: str,
    *,
    model: str,
    prepare: Preparation | None,
    held_out: float,
    console: Console,
    processes: Processes,
) -> ImageDataset:
    """One split of the data, prepared for the model; ``limit`` is for the training split alone.

    Several processes read it together, the part of it that is ``held_out`` last.
    """
    from assay.cli.inputs import open_data
    from assay.training.classifier import hold_out_last, is_ours

    limit, source = inputs.limit if split == "train" else None, None if is_ours(model) else model
    chosen = replace(inputs, model=source, split=split, limit=limit)
    arrange = partial(hold_out_last, fraction=held_out) if held_out and split == "train" else None
    return open_data(chosen, console, prepare=prepare, processes=processes, arrange=arrange)


def _notify(listeners: list[OnStep], metrics: StepMetrics) -> None:
    for listener in listeners:
        listener(metrics)
