"""The two kinds of work that ``assay train`` does with its one loop: images, and sequences made up as they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from assay.errors import OptionError

if TYPE_CHECKING:
    from assay.data.dataset import ImageDataset
    from assay.records.accuracy import CleanAccuracy, SequenceAccuracy
    from assay.records.base import Record
    from assay.runtime.processes import Processes
    from assay.training.classifier import Trained
    from assay.training.recipes import Recipe


@dataclass(frozen=True)
class Tested:
    """A reading of the test set: the file of the run folder that keeps it, the record, and the same in words."""

    file: str
    record: Record
    sentence: str


@dataclass(frozen=True)
class Job:
    """``train`` takes the options of :func:`~assay.training.loop.fit`; ``test`` is asked once, at the end.

    ``notes`` are to be told before. ``test`` is None where there is nothing to test on.
    """

    train: Callable[..., Trained]
    test: Callable[[Trained, Processes], Iterator[Tested]] | None
    notes: tuple[str, ...] = ()


def image_job(recipe: Recipe, load: Callable[[str], ImageDataset], *, validation_fraction: float, seed: int) -> Job:
    """``load`` gives the split of that name."""
    from assay.data.selection import stratified_split
    from assay.training.classifier import train_classifier

    whole = load("train")
    training_set, held_out = whole, None
    if validation_fraction:
        training_set, held_out = stratified_split(whole, fraction=validation_fraction, seed=0)
    return Job(
        train=partial(train_classifier, training_set, recipe=recipe, validation=held_out, seed=seed),
        test=partial(_test_images, recipe=recipe, load=load) if whole.split == "train" else None,
        notes=tuple(f"skipped: {line}" for line in whole.skipped),
    )


def _test_images(
    trained: Trained, processes: Processes, *, recipe: Recipe, load: Callable[[str], ImageDataset]
) -> Iterator[Tested]:
    from assay.evaluate import predict_shared, summarize
    from assay.models.wrappers import AveragedViews

    images = load("test")
    asked = {"test.json": (trained.model, "")}
    if recipe.test_views > 1:
        averaged = AveragedViews(trained.model, views=recipe.test_views)
        asked["test-averaged.json"] = (averaged, f", averaged over {recipe.test_views} views")
    for file, (model, how) in asked.items():
        found = summarize(predict_shared(model, images, processes), classes=images.classes)
        yield Tested(file, found, f"Test accuracy{how} {found.accuracy:.2%} ({_interval(found)}).")


def sequence_job(recipe: Recipe, name: str, *, seed: int) -> Job:
    """The task of that name, as long as the recipe says. Raises :class:`OptionError` for a length that is too small."""
    from assay.data.sequences import make_task
    from assay.training.sequence_model import train_sequence_model

    task = make_task(name, length=recipe.sequence.length, seed=seed)

    def test(trained: Trained, processes: Processes) -> Iterator[Tested]:
        from assay.evaluate import measure_sequence_accuracy

        found = measure_sequence_accuracy(trained.model, task, n=recipe.sequence.test_samples, label=recipe.model)
        sentence = (
            f"Test loss {found.loss:.4g} ({found.loss_unit}); {found.accuracy:.2%} {found.right_is} "
            f"({_interval(found)}). "
            f"Without memory: {found.baseline:.4g} ({found.baseline_is})."
        )
        yield Tested("test.json", found, sentence)

    return Job(train=partial(train_sequence_model, task, recipe=recipe, seed=seed), test=test)


def refuse_image_options(name: str, **given: object) -> None:
    """Raise :class:`OptionError` for an option that only stored images have, with a task that is made up as it goes."""
    for option, value in given.items():
        if value:
            flag = f"--{option.replace('_', '-')}"
            raise OptionError(flag, expected=f"nothing: {name} is drawn anew at every step", got=value)


def _interval(found: CleanAccuracy | SequenceAccuracy) -> str:
    return f"95 % interval {found.low:.2%} to {found.high:.2%}, n = {found.n:,}"
