"""The networks that claims examine: trained side by side from the same seeds, or one shared by several claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from assay.claims.claim import Settings
from assay.claims.evidence import difference, mean_point
from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import DivergedError, OptionError
from assay.evaluate import predict
from assay.files import locked, make_folder
from assay.models.sources import open_model
from assay.records.claims import ClaimSample, Expectation, Point
from assay.training.classifier import build_for, train_classifier
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.recipes import Recipe, load_recipe
from assay.training.sections import DecaySchedule, Nothing, SGDOptions

BATCH = 64
LAST = 10  # steps that the final training loss is the mean of

Prepare = Callable[[nn.Module], None]
K = TypeVar("K")  # what tells the recipes apart


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """One trained ``model``: its ``steps``, and on the test set its ``accuracy`` in per cent and its loss in nats."""

    model: nn.Module
    steps: tuple[StepMetrics, ...]
    accuracy: float
    test_loss: float
    diverged: bool

    @property
    def training_loss(self) -> float:
        """Mean cross-entropy of the last ten batches, in nats; those of a run that diverged: the last before."""
        last = [step.loss for step in self.steps[-LAST:]]
        return fmean(last) if last else math.inf


def short_recipe(
    data: ImageDataset,
    *,
    name: str,
    model: str,
    steps: int,
    options: Mapping[str, object] | None = None,
    learning_rate: float = 0.05,
) -> Recipe:
    """SGD with momentum for ``steps`` batches of 64, without augmentation; the rate rises for a fifth of them.

    Without that rise the first steps of a deep residual network undo its initialisation (He et al. 2015, section 4.2,
    on 110 layers), and so short a run does not recover.
    """
    return Recipe(
        name=name,
        data=data.name,
        model=model,
        model_options=dict(options or {}),
        epochs=steps / max(1, len(data) // BATCH),
        batch_size=BATCH,
        refresh_batchnorm=1000,
        optimizer=SGDOptions(lr=learning_rate),
        schedule=DecaySchedule(warmup=0.2),
        augment=Nothing(),
    )


def train_one(
    recipe: Recipe, train: ImageDataset, test: ImageDataset, *, seed: int, prepare: Prepare | None = None
) -> TrainedNetwork:
    """Build, ``prepare``, fit and test one network; a run that diverges is a result as well."""
    model = build_for(recipe, train, seed=seed)
    if prepare is not None:
        prepare(model)
    steps: list[StepMetrics] = []
    diverged = False
    try:
        fit(model, train, recipe=recipe, seed=seed, on_step=steps.append)
    except DivergedError:
        diverged = True
    predictions = predict(model, test)
    accuracy = 100 * float(predictions.correct.double().mean())
    return TrainedNetwork(model.eval(), tuple(steps), accuracy, float(predictions.losses.double().mean()), diverged)


def train_side_by_side(
    recipes: Mapping[K, Recipe],
    train: ImageDataset,
    test: ImageDataset,
    *,
    seeds: Sequence[int],
    prepare: Prepare | None = None,
) -> dict[K, tuple[TrainedNetwork, ...]]:
    """Every recipe from every seed; networks at one index of two tuples have their seed in common."""
    return {
        name: tuple(train_one(recipe, train, test, seed=seed, prepare=prepare) for seed in seeds)
        for name, recipe in recipes.items()
    }


Value = Literal["accuracy", "test_loss", "training_loss"]
Networks = Sequence[TrainedNetwork]


def paired(of: Networks, against: Networks, value: Value) -> tuple[float, ...]:
    """``value`` of each network less that of the other with the same seed."""
    return tuple(getattr(one, value) - getattr(other, value) for one, other in zip(of, against, strict=True))


def compared(
    value: Value, rest: str, of: Networks, base: Networks, expects: Expectation, margin: float, *, decides: bool = True
) -> ClaimSample:
    """The paired differences of ``value`` as a sample, called by the value and the ``rest`` of its name."""
    name, unit = value.replace("_", " ") + rest, "points" if value == "accuracy" else "nats"
    return difference(name, paired(of, base, value), unit, expects, margin, decides=decides)


def means(networks: Networks, *values: Value) -> list[float]:
    """The mean of each of ``values`` over the networks."""
    return [fmean(getattr(network, value) for network in networks) for value in values]


def mean_curve(
    networks: Networks, value: Callable[[StepMetrics], float], *, series: str, most: int = 60
) -> list[Point]:
    """The mean of ``value`` over the seeds at up to ``most`` of the steps that all of them reached."""
    length = min(len(one.steps) for one in networks)
    shown = sorted({round(i * (length - 1) / max(1, most - 1)) for i in range(most)}) if length else []
    return [mean_point((value(one.steps[i]) for one in networks), x=i + 1, series=series) for i in shown]


def small_images(settings: Settings) -> tuple[ImageDataset, ImageDataset]:
    """Training and test split for networks that are trained many times: digits at 8×8 pixels, as they were drawn."""
    side = 8 if settings.data == "digits" else settings.pick(tiny=8, quick=16, full=None)
    return settings.train(side=side), settings.test(side=side)


EXAMPLES = 16  # images that a converted program is compared with the original on
RECIPES = {"digits": "digits", "cifar10": "cifar10-fast"}


@dataclass(frozen=True, eq=False)
class Network:
    """A trained ``model``, what to call it, and the test images it is examined on."""

    model: nn.Module
    name: str
    test: ImageDataset


def trained_network(settings: Settings) -> Network:
    """The network of the settings; else one trained by the data's own recipe and kept in the run's folder.

    Claims that run side by side wait for the one that trains. Raises :class:`ModelError` for a model that does not
    fit the data, and :class:`OptionError` for data that there is no recipe for.
    """
    test = settings.test()
    if settings.model is not None:
        opened = open_model(
            settings.model,
            weights=settings.weights,
            classes=test.classes,
            image_shape=test.shape,
            trust_code=settings.trust_code,
            examples=to_unit_range(test.images[:EXAMPLES]),
        )
        return Network(opened.model.eval(), settings.model, test)
    if settings.data not in RECIPES:
        raise OptionError("data", expected=f"one of {', '.join(RECIPES)}, or a model", got=repr(settings.data))
    recipe = load_recipe(RECIPES[settings.data])
    name = f"{recipe.model} trained on {settings.data}"
    if settings.folder is None:
        return Network(train_classifier(settings.train(), recipe=recipe, seed=settings.seed).model, name, test)
    folder = make_folder(settings.folder / "networks" / f"{recipe.name}-seed{settings.seed}")
    train = settings.train()
    with locked(folder / ".lock"):
        try:
            trained = train_classifier(train, recipe=recipe, seed=settings.seed, out=folder, resume=True)
        except OptionError:  # what is there was trained by another version of the recipe, or is damaged
            trained = train_classifier(train, recipe=recipe, seed=settings.seed, out=folder)
    return Network(trained.model, name, test)


SIDE = 8  # pixels; small enough for the whole Hessian


def image_matrix(settings: Settings, *, rows: int) -> Tensor:
    """float64 (rows, C·8·8): the first training images, averaged down to 8×8 pixels, in [0, 1]."""
    images = to_unit_range(settings.train().images[:rows])
    return F.adaptive_avg_pool2d(images, SIDE).flatten(1).double()
