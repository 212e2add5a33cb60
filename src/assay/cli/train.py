"""``assay train``: train a classifier by a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import arguments as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.data.dataset import ImageDataset
    from assay.records.accuracy import CleanAccuracy
    from assay.records.training import TrainingRun
    from assay.training.recipes import Recipe


def train(
    data: Annotated[
        str | None,
        typer.Argument(help="The images to train on; without it, what the recipe was made for.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe by name, or a .toml file. [default: digits; for other data cifar10-fast]"),
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in --out already.")] = False,
    test: Annotated[bool, typer.Option(help="Read the test set once, at the end.")] = True,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as TOML and end.")] = False,
) -> None:
    """Train a classifier: a recipe decides, --set changes it, and the run folder keeps all that a run is.

    Killed or interrupted at any moment, the same command with --resume ends in the same weights.

    Exit codes: 0 done, 2 usage or input error, 3 interrupted (--resume).
    """
    from rich.console import Console

    from assay.cli.progress import TrainingProgress
    from assay.evaluate import measure_clean_accuracy
    from assay.files import write_atomically
    from assay.training.classifier import train_classifier

    before = _config_of(out) if resume else {}
    chosen = _choose_recipe(recipe, data=data, model=model, sets=sets or [], before=before)
    if show:
        typer.echo(chosen.to_toml(), nl=False)
        return
    number = before.get("seed", 0) if seed is None else seed
    name = data or before.get("data", {}).get("name") or chosen.data
    folder = out or Path("runs") / f"{chosen.name}-{number}"
    if (folder / "config.json").exists() and not (resume or overwrite):
        expected = "a new folder, or --resume to go on, or --overwrite"
        raise OptionError("--out", expected=expected, got=f"{folder}, which holds a run")
    console = Console(stderr=True)
    training_set, held_out = _load_training(
        name, data_dir=data_dir, limit=limit, image_size=image_size, max_bad=max_bad, fraction=validation_fraction
    )
    _say_skipped(training_set, console)
    with TrainingProgress(console) as progress:
        trained = train_classifier(
            training_set,
            recipe=chosen,
            validation=held_out,
            seed=number,
            out=folder,
            device=device,
            on_step=progress.step,
            resume=resume,
        )
    write_atomically(folder / "training.json", trained.run.model_dump_json(indent=1) + "\n")
    accuracy = None
    if test and training_set.split == "train":
        from assay.data.sources import load_dataset

        images = load_dataset(name, split="test", data_dir=data_dir, image_size=image_size, max_bad=max_bad)
        accuracy = measure_clean_accuracy(trained.model, images)
        write_atomically(folder / "test.json", accuracy.model_dump_json(indent=1) + "\n")
    _print_run(trained.run, accuracy, Console())
    typer.echo(f"Run: {folder}")


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
        recipe = Recipe.parse(dict(before["recipe"]), where="config.json: recipe")
    else:
        recipe = load_recipe(name or ("digits" if data in {None, "digits"} else "cifar10-fast"), overrides=sets)
    if model is not None and model != recipe.model:
        recipe = recipe.model_copy(update={"model": model, "model_options": {}})
    return recipe


def _load_training(
    name: str, *, data_dir: Path | None, limit: int | None, image_size: int | None, max_bad: int, fraction: float
) -> tuple[ImageDataset, ImageDataset | None]:
    """The training set, less what is held out of it."""
    from assay.data.sources import load_dataset
    from assay.data.split import stratified_split

    whole = load_dataset(name, split="train", data_dir=data_dir, limit=limit, max_bad=max_bad, image_size=image_size)
    return stratified_split(whole, fraction=fraction, seed=0) if fraction else (whole, None)


def _say_skipped(dataset: ImageDataset, console: Console) -> None:
    for line in dataset.skipped:
        console.print(f"skipped: {line}", style="yellow", markup=False)


def _print_run(run: TrainingRun, accuracy: CleanAccuracy | None, console: Console) -> None:
    """The epochs as a table, then the accuracy on the test set with its interval."""
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    headings = ("epoch", "loss", "accuracy", "validation", "learning rate", "gradient", "img/s", "seconds")
    for heading in headings:
        table.add_column(heading, justify="right")
    for epoch in run.epochs:
        held_out = "" if epoch.validation_accuracy is None else f"{epoch.validation_accuracy:.2%}"
        table.add_row(
            str(epoch.epoch + 1),
            f"{epoch.loss:.4f}",
            f"{epoch.accuracy:.2%}",
            held_out,
            f"{epoch.learning_rate:.3g}",
            f"{epoch.gradient_norm:.3g}",
            f"{epoch.images_per_second:,.0f}",
            f"{epoch.seconds:.1f}",
        )
    console.print(table)
    console.print(f"Trained {run.model} on {run.n:,} images of {run.data} in {run.seconds:.1f} s.")
    if accuracy is not None:
        interval = f"95 % interval {accuracy.low:.2%} to {accuracy.high:.2%}"
        console.print(f"Test accuracy {accuracy.accuracy:.2%} ({interval}, n = {accuracy.n:,}).")
