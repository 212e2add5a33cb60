"""From a recipe to a trained sequence model, and from its run folder back to the model."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from assay.data.sequences import SYNTHETIC_TASKS, SequenceTask, make_task
from assay.errors import ModelError, OptionError
from assay.models.sequence import CELLS, SequenceModelOptions, build_sequence_model
from assay.models.sources.run_folder import CONFIG, WEIGHTS
from assay.models.weights import load_weights, read_weights
from assay.runtime import choose_device
from assay.runtime.processes import ALONE, Processes
from assay.training.classifier import Trained
from assay.training.loop import fit
from assay.training.metrics import OnStep
from assay.training.recipes import AugmentOptions, OptimizerOptions, Recipe, ScheduleOptions, SequenceOptions
from assay.training.step import Around, nothing_around


def train_sequence_model(
    task: SequenceTask,
    *,
    recipe: Recipe,
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
    around: Around = nothing_around,
    on_step: OnStep | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    processes: Processes = ALONE,
) -> Trained:
    """Build the recipe's model for ``task`` and :func:`~assay.training.loop.fit` it; see there for the options."""
    model = build_sequence_for(recipe, task, seed=seed).to(choose_device(device))
    run = fit(
        model,
        task,
        recipe=recipe,
        seed=seed,
        out=out,
        around=around,
        on_step=on_step,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        processes=processes,
        architecture=recipe.model,
    )
    return Trained(model, run)


def build_sequence_for(recipe: Recipe, task: SequenceTask, *, seed: int) -> nn.Module:
    """The recipe's model, as wide as ``task`` needs, its weights from ``seed``.

    Raises :class:`OptionError` for a model that reads no sequences and for wrong ``model_options``.
    """
    if recipe.model not in CELLS:
        expected = f"a sequence model for the task {task.name}: {', '.join(CELLS)}"
        raise OptionError(f"recipe {recipe.name}: model", expected=expected, got=recipe.model)
    options = SequenceModelOptions.parse(dict(recipe.model_options), where="model_options")
    return build_sequence_model(
        recipe.model,
        features=task.features,
        outputs=task.outputs,
        length=task.length,
        reads=task.reads,
        hidden=options.hidden,
        layers=options.layers,
        forget_bias=options.forget_bias,
        seed=seed,
    )


def load_sequence_run(folder: Path) -> tuple[nn.Module, SequenceTask]:
    """The trained model of a run folder, in evaluation mode, and the task it was trained on.

    Raises :class:`ModelError` or :class:`OptionError` for a folder that is not the run of a sequence task.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        recipe, name, seed = dict(config["recipe"]), str(config["data"]["name"]), int(config["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(str(path), expected="the configuration of a run", got=error) from None
    if name not in SYNTHETIC_TASKS:
        raise ModelError(
            str(path), expected=f"a run on one of the tasks {', '.join(SYNTHETIC_TASKS)}", got=f"one on {name}"
        )
    parsed = Recipe.parse(recipe, where=f"{path}: recipe")
    task = make_task(name, length=parsed.sequence.length, seed=seed)
    model = build_sequence_for(parsed, task, seed=seed)
    load_weights(model, read_weights(folder / WEIGHTS), where=str(folder / WEIGHTS))
    return model.eval(), task


def constant_recipe(
    name: str, *, model: str, steps: int, batch_size: int, learning_rate: float, weight_decay: float = 0.0
) -> Recipe:
    """``steps`` steps of Adam at one rate: what models and remedies are compared under."""
    return Recipe(
        name=name,
        model=model,
        epochs=1,
        batch_size=batch_size,
        augment=AugmentOptions(name="none"),
        optimizer=OptimizerOptions(name="adamw", lr=learning_rate, weight_decay=weight_decay),
        schedule=ScheduleOptions(name="constant"),
        sequence=SequenceOptions(samples=steps * batch_size),
    )
