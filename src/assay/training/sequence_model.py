"""From a recipe to a trained and tested sequence model, and from its run folder back to the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from assay.arguments import checked
from assay.data.sequences import SYNTHETIC_TASKS, SequenceTask, make_task
from assay.errors import ModelError, OptionError
from assay.evaluate import measure_sequence_accuracy
from assay.models.sequence import CELLS, SequenceModelOptions, build_sequence_model
from assay.models.sources.run_folder import CONFIG, WEIGHTS
from assay.models.weights import load_weights, read_weights
from assay.runtime import choose_device
from assay.runtime.processes import Processes
from assay.training.classifier import TestResult, Trained, TrainingJob, describe_interval
from assay.training.loop import fit
from assay.training.recipes import Recipe
from assay.training.sections import AdamWOptions, ConstantSchedule, Nothing, SequenceOptions


@checked
def train_sequence_model(
    task: SequenceTask, *, recipe: Recipe, device: str = "cpu", seed: int = 0, **options: Any
) -> Trained:
    """Build the recipe's model for ``task`` and :func:`~assay.training.loop.fit` it; see there for the options."""
    model = build_sequence_for(recipe, task, seed=seed).to(choose_device(device))
    return Trained(model, fit(model, task, recipe=recipe, seed=seed, architecture=recipe.model, **options))


def sequence_job(recipe: Recipe, name: str, *, seed: int) -> TrainingJob:
    """Train on the task of that name, as long as the recipe sets, and test on new sequences of it.

    Raises :class:`OptionError` for a length that is too small.
    """
    task = make_task(name, length=recipe.sequence.length, seed=seed)

    def test(trained: Trained, processes: Processes) -> Iterator[TestResult]:
        record = measure_sequence_accuracy(trained.model, task, n=recipe.sequence.test_samples, label=recipe.model)
        sentence = (
            f"Test loss {record.loss:.4g} ({record.loss_unit}); {record.accuracy:.2%} {record.right_is} "
            f"({describe_interval(record)}). Without memory: {record.baseline:.4g} ({record.baseline_is})."
        )
        yield TestResult("test.json", record, sentence)

    return TrainingJob(train=partial(train_sequence_model, task, recipe=recipe, seed=seed), test=test)


def build_sequence_for(recipe: Recipe, task: SequenceTask, *, seed: int) -> nn.Module:
    """The recipe's model, as wide as ``task`` needs, its weights from ``seed``.

    Raises :class:`OptionError` for a model that reads no sequences and for wrong ``model_options``.
    """
    if recipe.model not in CELLS:
        expected = f"a sequence model for the task {task.name}: {', '.join(CELLS)}"
        raise OptionError(f"recipe {recipe.name}: model", expected=expected, got=recipe.model)
    options = SequenceModelOptions.parse(dict(recipe.model_options), where="model_options")
    return build_sequence_model(recipe.model, **task.shape, **options.model_dump(), seed=seed)


def load_sequence_run(folder: Path) -> tuple[nn.Module, SequenceTask]:
    """The trained model of a run folder, in evaluation mode, and the task it was trained on.

    Raises :class:`ModelError` or :class:`OptionError` for a folder that is not the run of a sequence task.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        saved, name, seed = dict(config["recipe"]), str(config["data"]["name"]), int(config["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(str(path), expected="the configuration of a run", got=error) from None
    if name not in SYNTHETIC_TASKS:
        expected = f"a run on one of the tasks {', '.join(SYNTHETIC_TASKS)}"
        raise ModelError(str(path), expected=expected, got=f"one on {name}")
    recipe = Recipe.parse_saved(saved, where=f"{path}: recipe")
    task = make_task(name, length=recipe.sequence.length, seed=seed)
    model = build_sequence_for(recipe, task, seed=seed)
    load_weights(model, read_weights(folder / WEIGHTS), where=str(folder / WEIGHTS))
    return model.eval(), task


def constant_recipe(
    name: str, *, model: str, steps: int, batch_size: int, learning_rate: float, weight_decay: float = 0.0
) -> Recipe:
    """``steps`` steps of Adam at one learning rate: the training under which models and remedies are compared."""
    return Recipe(
        name=name,
        model=model,
        epochs=1,
        batch_size=batch_size,
        augment=Nothing(),
        optimizer=AdamWOptions(lr=learning_rate, weight_decay=weight_decay),
        schedule=ConstantSchedule(),
        sequence=SequenceOptions(samples=steps * batch_size),
    )
