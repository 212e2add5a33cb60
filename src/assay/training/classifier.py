"""From a recipe and images to a trained and tested classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import draw_held_out, stratified_split
from assay.errors import OptionError
from assay.evaluate import predict_shared, summarize
from assay.models.architectures import ARCHITECTURES, build
from assay.models.sources.adaptation import AdaptedModel, adapt_model
from assay.models.sources.blueprint import ModelRequest, NormalizationChoice
from assay.models.sources.named import plan_named
from assay.models.sources.run_folder import is_run_folder, read_config, structure_of_run
from assay.models.speednet import SpeedNet
from assay.models.wrappers import AveragedViews
from assay.records.accuracy import CleanAccuracy, SequenceAccuracy
from assay.records.base import Record
from assay.records.training import TrainingRun
from assay.runtime import choose_device, generator
from assay.runtime.processes import ALONE, Processes
from assay.training.loop import fit
from assay.training.metrics import OnStep
from assay.training.recipes import Recipe
from assay.training.step import Perturb

SPLIT_SEED = 0
SAMPLE_STREAM = 0x5A3
SAMPLE = 500  # images that the first layer is computed from: half a million patches at 32×32


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained ``model`` in evaluation mode, and the record of its training."""

    model: nn.Module
    run: TrainingRun


@dataclass(frozen=True)
class TestResult:
    """A measurement on the test set: the file of the run folder that keeps it, the record, and a sentence with both."""

    __test__ = False  # no test case, for pytest

    file: str
    record: Record
    sentence: str


@dataclass(frozen=True)
class TrainingJob:
    """A training and its test, for images or sequences: what ``assay train`` runs.

    ``train`` takes the options of :func:`~assay.training.loop.fit`; ``test`` is called once, after it, and is None
    where there is nothing to test on.
    """

    train: Callable[..., Trained]
    test: Callable[[Trained, Processes], Iterator[TestResult]] | None


@checked
def train_classifier(
    train: ImageDataset,
    *,
    recipe: Recipe,
    validation: ImageDataset | None = None,
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
    perturb: Perturb | None = None,
    on_step: OnStep | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    processes: Processes = ALONE,
    weights: Path | None = None,
    normalization: NormalizationChoice = None,
    trust_code: bool = False,
) -> Trained:
    """Build the recipe's network for ``train`` and train it.

    A network of ours is built with random weights for the classes, shape, mean and standard deviation of ``train``. Any
    other, or one with ``weights``, keeps its own mean and standard deviation and goes on from where it is: with its
    last layer where the classes are its own, else with a new one.

    Args:
        train: The training images.
        recipe: The architecture and everything about its training.
        validation: Held-out images; accuracy on them is measured after every epoch.
        seed: Decides the initial weights and every random choice of the training.
        out: The run folder; None: nothing is written.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the fastest there is.
        perturb, on_step, resume, checkpoint_seconds, processes: As in :func:`~assay.training.loop.fit`.
        weights: A file of weights, or a run folder, that the network starts from.
        normalization: In place of the network's own, where it goes on from trained weights.
        trust_code: Open also a source that can run code of its own.

    Returns:
        The trained model in evaluation mode, and the record of its training.

    Raises:
        ModelError: The architecture is unknown, or cannot take the images.
        OptionError: ``model_options`` or another part of the recipe does not fit.
        DivergedError, InterruptedRunError, OutputError: As in :func:`~assay.training.loop.fit`.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", split="train", limit=64)
        >>> recipe = assay.load_recipe("digits", overrides=["epochs=1", "model_options.widths=[4, 4, 4]"])
        >>> trained = assay.train_classifier(data, recipe=recipe, seed=1)
        >>> trained.model.training, trained.run.epochs[0].steps
        (False, 1)
    """
    chosen = choose_device(device)
    start = _start(
        recipe,
        train,
        seed=seed,
        weights=weights,
        normalization=normalization,
        trust_code=trust_code,
        saved=out if resume else None,
    )
    model = start.model.to(chosen)
    run = fit(
        model,
        train,
        recipe=recipe,
        validation=validation,
        seed=seed,
        out=out,
        perturb=perturb,
        on_step=on_step,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        processes=processes,
        architecture=start.structure or recipe.model,
    )
    return Trained(model, run.model_copy(update={"notes": (*start.notes, *run.notes)}))


def is_ours(model: str) -> bool:
    """Whether a recipe's model can only be the name of an architecture of ours, and not one to go on from."""
    return model in ARCHITECTURES or not (":" in model or Path(model).exists())


def _start(
    recipe: Recipe,
    train: ImageDataset,
    *,
    seed: int,
    weights: Path | None,
    normalization: NormalizationChoice,
    trust_code: bool,
    saved: Path | None,
) -> AdaptedModel:
    """The model that a run begins with; of one that was ``saved``, the structure alone, as the rest is restored."""
    if is_ours(recipe.model) and weights is None:
        if normalization is not None:
            expected = "none: a network of ours without weights gets that of the data"
            raise OptionError("normalization", expected=expected, got=normalization)
        return AdaptedModel(build_for(recipe, train, seed=seed), None, ())
    if recipe.model_options:
        where, got = f"recipe {recipe.name}: model_options", dict(recipe.model_options)
        raise OptionError(where, expected=f"none beside {recipe.model}, which spells its own", got=got)
    if saved is not None and (saved / "state.pt").is_file() and is_run_folder(saved):
        structure = structure_of_run(saved)
        if structure is not None:
            request = ModelRequest(train.shape, read_config(saved).normalization, seed, trust_code)
            return AdaptedModel(
                plan_named(structure.name, request, structure.options).make(len(train.classes)), structure, ()
            )
    return adapt_model(
        recipe.model,
        classes=train.classes,
        image_shape=train.shape,
        weights=weights,
        normalization=normalization,
        seed=seed,
        trust_code=trust_code,
    )


def classifier_job(
    recipe: Recipe,
    load: Callable[[str], ImageDataset],
    *,
    validation_fraction: float,
    seed: int,
    weights: Path | None = None,
    normalization: NormalizationChoice = None,
    trust_code: bool = False,
) -> TrainingJob:
    """Train on the split ``load("train")``, less the share held out for validation, and test on ``load("test")``."""
    images = load("train")
    training_set, validation = images, None
    if validation_fraction:
        training_set, validation = stratified_split(images, fraction=validation_fraction, seed=SPLIT_SEED)
    train = partial(
        train_classifier,
        training_set,
        recipe=recipe,
        validation=validation,
        seed=seed,
        weights=weights,
        normalization=normalization,
        trust_code=trust_code,
    )
    test = partial(_test_images, recipe=recipe, load=load) if images.split == "train" else None
    return TrainingJob(train, test)


def hold_out_last(ids: Tensor, labels: Tensor, classes: int, *, fraction: float) -> Tensor:
    """An order int64 (N,) in which the samples that :func:`classifier_job` validates on follow those it trains on.

    In it, neither part has to be copied.
    """
    held_out = draw_held_out(ids, labels, classes, fraction=fraction, seed=SPLIT_SEED)
    return held_out.int().argsort(stable=True)


def _test_images(
    trained: Trained, processes: Processes, *, recipe: Recipe, load: Callable[[str], ImageDataset]
) -> Iterator[TestResult]:
    images = load("test")
    models = {"test.json": (trained.model, "")}
    if recipe.test_views > 1:
        averaged = AveragedViews(trained.model, views=recipe.test_views)
        models["test-averaged.json"] = (averaged, f", averaged over {recipe.test_views} views")
    for file, (model, how) in models.items():
        record = summarize(predict_shared(model, images, processes), classes=images.classes)
        yield TestResult(file, record, f"Test accuracy{how} {record.accuracy:.2%} ({describe_interval(record)}).")


def describe_interval(record: CleanAccuracy | SequenceAccuracy) -> str:
    """The 95 % interval of an accuracy and the number of samples it comes from."""
    return f"95 % interval {record.low:.2%} to {record.high:.2%}, n = {record.n:,}"


def build_for(recipe: Recipe, train: ImageDataset, *, seed: int) -> nn.Module:
    """The recipe's network with the data's classes, shape, mean and standard deviation, and its weights from ``seed``.

    Raises :class:`ModelError` for an unknown architecture or images it cannot take, :class:`OptionError` for a wrong
    ``model_options``.
    """
    model = build(
        recipe.model,
        classes=len(train.classes),
        image_shape=train.shape,
        normalization=measure_normalization(train),
        options=recipe.model_options,
        seed=seed,
    )
    if isinstance(model, SpeedNet):
        chosen = torch.randperm(len(train), generator=generator(seed, SAMPLE_STREAM))[:SAMPLE]
        model.initialize_from(to_unit_range(train.images[chosen]))
    return model


def measure_normalization(dataset: ImageDataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel over all pixels, in [0, 1] units.

    From integer histograms, so exact to rounding however large the set. A channel that never varies gets 1.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    moments = []
    counted = torch.zeros(dataset.shape[0], 256, dtype=torch.float64)
    for batch in dataset.batches(SAMPLE):  # a large set is not all in memory
        for channel, counts in enumerate(counted):
            counts += torch.bincount(batch.images[:, channel].flatten(), minlength=256)
    for counts in counted:
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        moments.append((mean, variance**0.5 or 1.0))
    means, stds = zip(*moments, strict=True)
    return means, stds
